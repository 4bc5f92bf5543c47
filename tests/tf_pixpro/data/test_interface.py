"""Classes of two sources agree by their names."""

import numpy as np
import pytest
from image_sources import jpeg, write

from tf_evonorm.mistakes import Mistake
from tf_pixpro import data


def test_classes_of_two_sets_agree_by_names(tmp_path, files):
    train = data.source(write(tmp_path / "train", files))
    some = {name.replace("train/dog", "dog"): content for name, content in files.items() if "dog" in name}
    some |= {f"bird/{i}.jpg": jpeg(i) for i in range(2)}
    val = data.source(write(tmp_path / "val", some))
    with pytest.raises(Mistake, match=r"must have the same classes.*bird, cat"):
        data.check_labels(val, train.class_names)
    with pytest.raises(Mistake, match=r"also \['bird'\]"):
        data.with_classes(val, train.class_names)
    names = ("cat", "dog", "zebra", "bird")
    labels = np.concatenate([row["label"] for row in data.labelled_dataset(data.with_classes(val, names), (16, 16))])
    assert labels.tolist() == [3] * 2 + [1] * 5
    data.check_labels(train, ("cat", "dog"))
