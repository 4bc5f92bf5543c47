"""COCO files as the many tools that export them write them: the records against pycocotools and arithmetic."""

import copy
import json

import numpy as np
import pytest
from annotated import examples_of, picture_file
from official.vision.dataloaders import tf_example_decoder
from PIL import Image
from pycocotools import mask as run_lengths

from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer import records

SQUARE = [[2, 1, 6, 1, 6, 4, 2, 4]]  # x 2 to 6, y 1 to 4 of an image 8 wide and 6 high


def plain():
    """Two images with a cat in the first and a dog in the second."""
    box = {"bbox": [2, 1, 4, 3], "area": 12, "iscrowd": 0, "segmentation": SQUARE}
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 6, "width": 8} for i in (1, 2)],
        "annotations": [{"id": 10 + i, "image_id": i, "category_id": i, **box} for i in (1, 2)],
        "categories": [{"id": 1, "name": "cat", "supercategory": "pet"}, {"id": 2, "name": "dog"}],
    }


def each(key, **changes):
    """A change of every entry of a list; None removes a field."""

    def change(whole):
        for entry in whole[key]:
            entry.update(changes)

    return change


def without(key, *fields):
    def change(whole):
        for entry in whole[key]:
            for field in fields:
                entry.pop(field)

    return change


def ids_as(spell, *kinds):
    """Ids of images or categories spelled another way, in both places."""

    def change(whole):
        for kind in kinds:
            key, reference = {"image": ("images", "image_id"), "category": ("categories", "category_id")}[kind]
            for entry in whole[key]:
                entry["id"] = spell(entry["id"])
            for entry in whole["annotations"]:
                entry[reference] = spell(entry[reference])
        each("annotations", id="a")(whole)

    return change


def roboflow(whole):
    whole["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"})
    each("categories", supercategory="pets")({"categories": whole["categories"][1:]})


def run_length_text(whole):
    encoded = run_lengths.encode(np.asfortranarray(rectangle()))
    each("annotations", segmentation={"size": [6, 8], "counts": encoded["counts"].decode()})(whole)


def rectangle():
    mask = np.zeros((6, 8), np.uint8)
    mask[1:4, 2:6] = 1
    return mask


COUNTS = [13, 3, 3, 3, 3, 3, 3, 3, 14]  # columns first: two whole columns and one pixel, then three of six

VARIANTS = {
    "as COCO": lambda whole: None,
    "area null": each("annotations", area=None),
    "area missing": without("annotations", "area"),
    "area as text": each("annotations", area="12"),
    "box missing": without("annotations", "bbox"),
    "box null": each("annotations", bbox=None),
    "box empty": each("annotations", bbox=[]),
    "box as text": each("annotations", bbox=["2", "1.0", "4", "3"]),
    "box as one text": each("annotations", bbox="[2, 1, 4, 3]"),
    "box as text without brackets": each("annotations", bbox="2, 1 4;3"),
    "box in a list": each("annotations", bbox=[[2, 1, 4, 3]]),
    "box by names": each("annotations", bbox={"x": 2, "y": 1, "width": 4, "height": 3}),
    "crowd as text": each("annotations", iscrowd="0"),
    "crowd as bool": each("annotations", iscrowd=False),
    "crowd null": each("annotations", iscrowd=None),
    "crowd missing": without("annotations", "iscrowd"),
    "stray fragment": each("annotations", segmentation=[*SQUARE, [3, 3, 4, 3]]),
    "odd fragment": each("annotations", segmentation=[*SQUARE, [3, 3, 4, 3, 1, 2, 7]]),
    "flat polygon": each("annotations", segmentation=SQUARE[0]),
    "polygon of points": each("annotations", segmentation=[[[2, 1], [6, 1], [6, 4], [2, 4]]]),
    "outline as text": each("annotations", segmentation=json.dumps(SQUARE)),
    "run lengths as a list": each("annotations", segmentation={"size": [6, 8], "counts": COUNTS}),
    "run lengths in a list": each("annotations", segmentation=[{"size": [6, 8], "counts": COUNTS}]),
    "run lengths as text": run_length_text,
    "run lengths, box missing": lambda whole: (run_length_text(whole), without("annotations", "bbox")(whole)),
    "sizes missing": without("images", "height", "width"),
    "sizes 0": each("images", height=0, width=0),
    "sizes as floats": each("images", height=6.0, width=8.0),
    "sizes as text": each("images", height="6", width="8"),
    "image ids as text": ids_as(str, "image"),
    "category ids as text": ids_as(str, "category"),
    "image_id as text alone": lambda whole: [a.update(image_id=str(a["image_id"])) for a in whole["annotations"]],
    "ids as hashes": ids_as(lambda i: f"f0-{i}", "image", "category"),
    "ids as text of floats": ids_as(lambda i: f"{i}.0", "image", "category"),
    "ids from 0": ids_as(lambda i: i - 1, "image", "category"),
    "large image ids": ids_as(lambda i: i + 10**12, "image"),
    "Roboflow's root": roboflow,
    "supercategory missing": without("categories"),
    "backslashes": lambda whole: [i.update(file_name=f".\\{i['file_name']}") for i in whole["images"]],
    "prefix": lambda whole: [i.update(file_name=f"photos/{i['file_name']}") for i in whole["images"]],
    "longer prefix": lambda whole: [i.update(file_name=f"set/photos/{i['file_name']}") for i in whole["images"]],
    "another machine's path": lambda whole: [i.update(file_name=f"C:\\x\\{i['file_name']}") for i in whole["images"]],
    "absolute path": lambda whole: [i.update(file_name=f"/home/x/y/{i['file_name']}") for i in whole["images"]],
    "URL": lambda whole: [i.update(file_name=f"https://h.org/a/{i['file_name']}?v=1") for i in whole["images"]],
    "local file URL": lambda whole: [
        i.update(file_name=f"/data/local-files/?d=set/{i['file_name']}") for i in whole["images"]
    ],
    "case of the ending": lambda whole: [i.update(file_name=i["file_name"].upper()) for i in whole["images"]],
    "repeated image": lambda whole: whole["images"].append(dict(whole["images"][0])),
    "annotation without a listed image": lambda whole: whole["annotations"].append(
        {**whole["annotations"][0], "image_id": 99}
    ),
    "annotation of an unlisted category": lambda whole: whole["annotations"].append(
        {**whole["annotations"][0], "category_id": 99}
    ),
}
REPORTED = {"stray fragment", "odd fragment", "repeated image"}
REPORTED |= {"annotation without a listed image", "annotation of an unlisted category"}


def converted(tmp_path, whole, encoding="utf-8", **options):
    for name in ("1", "2"):
        picture_file(tmp_path / "set" / "photos" / f"{name}.png")
    path, images = tmp_path / "instances.json", str(tmp_path / "set" / "photos")
    path.write_bytes(json.dumps(whole).encode(encoding))
    problems = records.Problems()
    found, categories = records.coco(images, str(path), problems, **options)
    summary = records.write_records(found, categories, str(tmp_path / "out"), "some", problems, 1, progress=False)
    decoder = tf_example_decoder.TfExampleDecoder(include_mask=True)
    return summary, [decoder.decode(record) for record in examples_of(tmp_path / "out")]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_lands_in_the_records_as_plain_coco_does(tmp_path, variant):
    whole = copy.deepcopy(plain())
    VARIANTS[variant](whole)
    summary, decoded = converted(tmp_path, whole)
    assert (summary["images"], summary["objects"]) == (2, 2)
    assert list(summary["categories"].values()) == ["cat", "dog"]
    assert bool(summary["problems"]) == (variant in REPORTED)
    for one, label in zip(decoded, (1, 2)):
        assert one["groundtruth_classes"].numpy().tolist() == [label]
        np.testing.assert_allclose(one["groundtruth_boxes"], [[1 / 6, 2 / 8, 4 / 6, 6 / 8]], rtol=1e-6)
        assert one["groundtruth_area"].numpy().tolist() == [12]
        assert one["groundtruth_is_crowd"].numpy().tolist() == [False]
        np.testing.assert_array_equal(one["groundtruth_instance_masks"][0], rectangle())


def test_run_lengths_of_the_table_are_the_rectangle():
    outline = run_lengths.frPyObjects({"size": [6, 8], "counts": COUNTS}, 6, 8)
    np.testing.assert_array_equal(run_lengths.decode(outline), rectangle())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(tmp_path, encoding):
    assert converted(tmp_path, plain(), encoding)[0]["objects"] == 2


@pytest.mark.parametrize("spelling", ["1", 1, True, "true", "yes", 1.0])
def test_crowds_in_any_spelling(tmp_path, spelling):
    whole = plain()
    each("annotations", iscrowd=spelling)(whole)
    assert [one["groundtruth_is_crowd"].numpy().tolist() for one in converted(tmp_path, whole)[1]] == [[True]] * 2


@pytest.mark.parametrize("empty", [None, [], [[]], {}, ""])
def test_no_outlines_at_all(tmp_path, empty):
    whole = plain()
    each("annotations", segmentation=empty)(whole)
    summary, decoded = converted(tmp_path, whole)
    assert summary["problems"] == {} and decoded[0]["groundtruth_instance_masks"].shape[0] == 0


@pytest.mark.parametrize("annotations", [[], None, ()])
def test_no_annotations(tmp_path, annotations):
    summary, _ = converted(tmp_path, {**plain(), "annotations": annotations})
    assert (summary["images"], summary["objects"]) == (2, 0)


def test_one_object_without_outline_gets_its_box(tmp_path):
    whole = plain()
    extra = {"id": 99, "image_id": 1, "category_id": 2, "bbox": [0, 0, 2, 2]}
    whole["annotations"].append(extra)
    summary, decoded = converted(tmp_path, whole)
    assert summary["problems"] == {"no outline": 1} and "annotation 99" in summary["lines"][0]
    masks = decoded[0]["groundtruth_instance_masks"].numpy()
    np.testing.assert_array_equal(masks[0], rectangle())
    assert np.argwhere(masks[1]).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    written = json.loads((tmp_path / "out" / "some_annotations.json").read_text())
    assert all(annotation["segmentation"] for annotation in written["annotations"])


def test_a_used_category_0_is_a_class(tmp_path):
    whole = plain()
    ids_as(lambda i: i - 1, "category")(whole)
    whole["categories"][0]["supercategory"] = "none"
    assert converted(tmp_path, whole)[0]["categories"] == {1: "cat", 2: "dog"}


def test_names_give_the_numbers(tmp_path):
    summary, decoded = converted(tmp_path, plain(), names=["dog", "fish", "cat"])
    assert summary["categories"] == {1: "dog", 2: "fish", 3: "cat"}
    assert [one["groundtruth_classes"].numpy().tolist() for one in decoded] == [[3], [1]]
    with pytest.raises(Mistake, match="without dog"):
        converted(tmp_path, plain(), names=["cat"])


def test_categories_of_one_name_are_reported(tmp_path):
    whole = plain()
    whole["categories"][1]["name"] = "cat"
    summary, _ = converted(tmp_path, whole)
    assert summary["categories"] == {1: "cat", 2: "cat"} and "several categories are named cat" in summary["notes"][0]
    summary, decoded = converted(tmp_path, whole, names=["cat"])
    assert [one["groundtruth_classes"].numpy().tolist() for one in decoded] == [[1], [1]] and not summary["notes"]


@pytest.mark.parametrize("outline", [[3, 3, 3, 3, 3, 3], [20, 20, 30, 20, 30, 30]])
def test_an_outline_without_a_pixel_is_reported(tmp_path, outline):
    whole = plain()
    whole["annotations"][0]["segmentation"] = [outline]
    summary, _ = converted(tmp_path, whole)
    assert summary["problems"] == {"empty mask": 1} and "annotation 11" in summary["lines"][0]
    assert (summary["images"], summary["objects"]) == (2, 2)


@pytest.mark.parametrize(
    "box", [[2, 1, 4, 3, 30], [[2, 1], [6, 4]], {"left": 2}, "2 1 4", "a b c d", [2, 1, 4, None], [2, 1, 4, 10**400]]
)
def test_a_box_that_is_none_leaves_out_its_object_alone(tmp_path, box):
    whole = plain()
    whole["annotations"][0]["bbox"] = box
    summary, _ = converted(tmp_path, whole)
    assert (summary["images"], summary["objects"]) == (2, 1)
    assert summary["problems"] == {"bad annotation": 1} and "annotation 11: " in summary["lines"][0]


@pytest.mark.parametrize("name", ["\ud800.png", "http://[x/1.png", " ", 7])
def test_a_name_that_is_none_leaves_out_its_image_alone(tmp_path, name):
    whole = plain()
    whole["images"][0]["file_name"] = name
    summary, _ = converted(tmp_path, whole)
    assert (summary["images"], summary["objects"]) == (1, 1) and "image" in summary["lines"][0]


def test_a_size_beyond_all_numbers_is_read_from_the_image(tmp_path):
    whole = plain()
    whole["images"][0]["height"] = 10**400
    summary, _ = converted(tmp_path, whole)
    assert (summary["images"], summary["problems"]) == (2, {})


def test_a_file_under_two_ids_is_reported(tmp_path):
    whole = plain()
    whole["images"][1]["file_name"] = "1.png"
    summary, _ = converted(tmp_path, whole)
    assert summary["images"] == 2 and summary["problems"] == {"repeated file": 1}
    assert "image 2: a file is one image" in summary["lines"][0] and "as image 1 too" in summary["lines"][0]


def test_a_prefix_that_is_not_the_folders_own_is_another_file(tmp_path):
    whole = plain()
    whole["images"][0]["file_name"] = "other/1.png"
    summary, _ = converted(tmp_path, whole)
    assert summary["problems"] == {"missing file": 1} and "other/1.png" in summary["lines"][0]


def test_the_folder_of_an_image_stays_in_the_annotations(tmp_path):
    picture_file(tmp_path / "set" / "photos" / "below" / "1.png")
    whole = plain()
    whole["images"][0]["file_name"] = "below\\1.png"
    converted(tmp_path, whole)
    written = json.loads((tmp_path / "out" / "some_annotations.json").read_text())
    assert [image["file_name"] for image in written["images"]] == ["below/1.png", "2.png"]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda whole: whole["images"][1].update(id=1), "image ids must be unique"),
        (lambda whole: whole["categories"][1].update(id=1), "own id"),
        (lambda whole: whole.pop("categories"), "COCO's JSON"),
        (lambda whole: whole.update(images=[3]), "COCO's JSON"),
        (lambda whole: whole.update(annotations={"11": whole["annotations"][0]}), "annotations must be a list"),
    ],
)
def test_ambiguous_files_are_refused(tmp_path, change, message):
    whole = plain()
    change(whole)
    with pytest.raises(Mistake, match=message):
        converted(tmp_path, whole)


def test_orientation_of_photos(tmp_path):
    """An object of the displayed image, against Pillow's exif_transpose."""
    from PIL import ImageOps

    stored = np.zeros((6, 8, 3), np.uint8)
    stored[:3, :4] = 255  # after orientation 6, a quarter turn clockwise: at the top right
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = tmp_path / "set" / "photos"
    folder.mkdir(parents=True)
    Image.fromarray(stored).save(folder / "1.jpg", exif=exif, quality=100, subsampling=0)
    whole = plain()
    whole["images"] = [{"id": 1, "file_name": "1.jpg", "height": 8, "width": 6}]
    whole["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [3, 0, 3, 4]}]
    summary, decoded = converted(tmp_path, whole)
    assert summary["problems"] == {}
    shown = np.asarray(ImageOps.exif_transpose(Image.open(folder / "1.jpg")))
    np.testing.assert_array_equal(decoded[0]["image"], shown)
    y1, x1, y2, x2 = np.rint(decoded[0]["groundtruth_boxes"][0].numpy() * [8, 6, 8, 6]).astype(int)
    assert shown[y1:y2, x1:x2].min() > 200 and shown[y2:].max() < 60
    with pytest.raises(Mistake, match="size of its annotation"):
        path = str(tmp_path / "instances.json")
        found, categories = records.coco(str(folder), path, records.Problems(), exif=False)
        records.write_records(found, categories, str(tmp_path / "raw"), "some", records.Problems(), exif=False)
