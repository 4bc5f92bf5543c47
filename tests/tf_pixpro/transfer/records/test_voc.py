"""Pascal VOC's XML in every layout and spelling: boxes against a plain reading of the XML file."""

import re

import numpy as np
import pytest
from PIL import Image

from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer import records

XML = """<annotation><folder>x</folder><filename>{filename}</filename>{size}
<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>
<xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object></annotation>"""
SIZE = "<size><width>8</width><height>6</height><depth>3</depth></size>"


ANIMAL = {"filename": "a.jpg", "size": SIZE, "difficult": 0, "box": (3, 2, 6, 4)}


def xml(path, **changes):
    values = {"filename": f"{path.stem}.jpg", "size": SIZE, "name": "cat", "difficult": 0, "box": (3, 2, 6, 4)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(XML.format(**{**values, **changes}), encoding="utf-8")


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(path, "PNG" if path.suffix.lower() == ".png" else "JPEG")


def listed(root, lines="a\n", folder="ImageSets/Main", encoding="utf-8"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "train.txt").write_bytes(lines.encode(encoding))


def read(root, **options):
    problems = records.Problems()
    images, _ = records.voc(str(root), "train", problems, names=["cat", "dog"], **options)
    return images, problems


@pytest.mark.parametrize(
    "image, filename",
    [
        ("a.jpg", "a.jpg"),
        ("a.jpeg", "a.jpeg"),
        ("a.JPG", "a.jpg"),
        ("a.jpg", "a.JPG"),
        ("a.png", "a.png"),
        ("a.PNG", "stale.jpg"),
        ("other name.jpg", "other name.jpg"),
        ("other.jpg", "C:\\photos\\other.jpg"),
        ("other.jpg", " other.jpg "),
        ("a.png", "a"),
        ("a.png", ""),
    ],
)
@pytest.mark.parametrize("folder", ["JPEGImages", "images", ""])
def test_images_by_name_and_ending(tmp_path, image, filename, folder):
    listed(tmp_path)
    xml(tmp_path / "Annotations" / "a.xml", filename=filename)
    photo(tmp_path / folder / image)
    (found,), problems = read(tmp_path)
    assert found.path == str(tmp_path / folder / image) and found.file_name == image and not problems.counts
    assert found.objects[0].box == (2, 1, 6, 4)


@pytest.mark.parametrize(
    "line, stem",
    [
        ("a", "a"),
        ("a.jpg", "a"),
        ("a.xml", "a"),
        ("  a  ", "a"),
        ("JPEGImages/a.jpg", "a"),
        ("C:\\x\\a.jpg", "a"),
        ("a 1", "a"),
        ("a -1", "a"),
        ("a  0", "a"),
        ("my photo 1", "my photo 1"),
        ("my photo 1 -1", "my photo 1"),
        ("v1.2 b", "v1.2 b"),
        ("below/a", "below/a"),
    ],
)
def test_lines_of_a_list(tmp_path, line, stem):
    listed(tmp_path, f"{line}\r\n\r\n")
    xml(tmp_path / "Annotations" / f"{stem}.xml")
    photo(tmp_path / "JPEGImages" / f"{stem}.jpg")
    (found,), problems = read(tmp_path)
    assert found.path == str(tmp_path / "JPEGImages" / f"{stem}.jpg") and not problems.counts


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_mark_of_a_list(tmp_path, encoding):
    listed(tmp_path, "a\nb\n", encoding=encoding)
    for stem in "ab":
        xml(tmp_path / "Annotations" / f"{stem}.xml")
        photo(tmp_path / "JPEGImages" / f"{stem}.jpg")
    assert len(read(tmp_path)[0]) == 2


@pytest.mark.parametrize("folders", [("", ""), ("train", "train"), ("Annotations", "JPEGImages"), ("xml", "images")])
def test_without_lists(tmp_path, folders):
    for stem in "ab":
        xml(tmp_path / folders[0] / f"{stem}.xml")
        photo(tmp_path / folders[1] / f"{stem}.jpg")
    xml(tmp_path / folders[0] / "._a.xml")
    images, problems = read(tmp_path)
    assert [image.file_name for image in images] == ["a.jpg", "b.jpg"] and [i.number for i in images] == [1, 2]
    assert not problems.counts and "no lists" in problems.notes[0]


def test_lists_without_the_split_are_no_flat_folder(tmp_path):
    listed(tmp_path)
    xml(tmp_path / "Annotations" / "a.xml")
    with pytest.raises(Mistake, match="must name a file of ImageSets/Main"):
        records.voc(str(tmp_path), "val", records.Problems())
    with pytest.raises(Mistake, match="must be a folder"):
        records.voc(str(tmp_path / "nowhere"), "val", records.Problems())
    (tmp_path / "empty").mkdir()
    with pytest.raises(Mistake, match="names none"):
        records.voc(str(tmp_path / "empty"), "val", records.Problems())


@pytest.mark.parametrize(
    "size",
    [
        "<size><width>0</width><height>0</height></size>",
        "<size><width> 8 </width><height>6.0</height></size>",
        "<size/>",
        "",
    ],
)
def test_sizes_of_the_image(tmp_path, size):
    listed(tmp_path)
    xml(tmp_path / "Annotations" / "a.xml", size=size)
    photo(tmp_path / "JPEGImages" / "a.jpg")
    (found,), problems = read(tmp_path)
    assert found.size == (6, 8) and not problems.counts


@pytest.mark.parametrize("spelling", ["1", "True", "true", "TRUE", " yes ", "1.0", "Y"])
def test_difficult(tmp_path, spelling):
    listed(tmp_path)
    xml(tmp_path / "Annotations" / "a.xml", difficult=spelling)
    photo(tmp_path / "JPEGImages" / "a.jpg")
    assert read(tmp_path)[0][0].objects[0].difficult


@pytest.mark.parametrize("spelling, reported", [("0", 0), ("False", 0), ("", 0), ("Unspecified", 0), ("perhaps", 1)])
def test_not_difficult(tmp_path, spelling, reported):
    listed(tmp_path)
    xml(tmp_path / "Annotations" / "a.xml", difficult=spelling)
    photo(tmp_path / "JPEGImages" / "a.jpg")
    (found,), problems = read(tmp_path)
    assert not found.objects[0].difficult and problems.counts["bad flag"] == reported


@pytest.mark.parametrize(
    "box, wanted",
    [
        ((0, 0, 7, 5), (0, 0, 8, 6)),
        ((2, 1, 5, 3), (2, 1, 6, 4)),
        ((0, 0, 8, 6), (0, 0, 8, 6)),
    ],
)
def test_zero_based_boxes(tmp_path, box, wanted):
    """Pixels 2 to 5 from 0 are the stretch from 2 to 6; a box that ends at the border is the same in both readings."""
    listed(tmp_path)
    xml(tmp_path / "Annotations" / "a.xml", box=box, name=" cat ")
    photo(tmp_path / "JPEGImages" / "a.jpg")
    (found,), problems = read(tmp_path, zero_based_boxes=True)
    assert found.objects[0].box == wanted and not problems.counts


def test_float_boxes(tmp_path):
    listed(tmp_path)
    xml(tmp_path / "Annotations" / "a.xml", box=("2.5", " 1.5 ", "6.0", "4e0"))
    photo(tmp_path / "JPEGImages" / "a.jpg")
    assert read(tmp_path)[0][0].objects[0].box == (1.5, 0.5, 6, 4)


def test_a_missing_image_ends_with_its_path(tmp_path):
    listed(tmp_path)
    xml(tmp_path / "Annotations" / "a.xml")
    images, problems = read(tmp_path)
    with pytest.raises(Mistake, match=r"there is no .*JPEGImages|there is no .*a\.jpg"):
        records.write_records(images, [], str(tmp_path / "out"), "some", problems, progress=False)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    "declaration, encoding",
    [
        ('<?xml version="1.0" encoding="gb2312"?>', "gb2312"),
        ("<?xml version='1.0' encoding='GBK'?>\n", "gbk"),
        ('<?xml version="1.0" encoding="utf-16"?>', "utf-16"),
        ('<?xml version="1.0" encoding="utf-8"?>', "utf-16"),  # rewritten by an editor
        ('<?xml version="1.0" encoding="gb2312"?>', "utf-8-sig"),
        ("", "utf-8"),
    ],
)
def test_xml_in_the_encodings_of_its_writers(tmp_path, declaration, encoding):
    (tmp_path / "a.xml").write_bytes((declaration + XML.format(**ANIMAL, name="\u732b")).encode(encoding))
    photo(tmp_path / "a.jpg")
    problems = records.Problems(strict=True)
    (found,), _ = records.voc(str(tmp_path), "train", problems, names=["dog", "\u732b"])
    assert [one.label for one in found.objects] == [2] and found.objects[0].box == (2, 1, 6, 4)


def test_latin_1_without_a_word_about_it(tmp_path):
    (tmp_path / "a.xml").write_bytes(XML.format(**ANIMAL, name="\xf1u").encode("latin-1"))
    photo(tmp_path / "a.jpg")
    (found,), _ = records.voc(str(tmp_path), "train", records.Problems(strict=True), names=["\xf1u"])
    assert len(found.objects) == 1


@pytest.mark.parametrize("prefix, attribute", [("", ' xmlns="http://a/b"'), ("v:", ' xmlns:v="http://a/b"')])
def test_namespaces_and_capitals_hide_no_object(tmp_path, prefix, attribute):
    text = re.sub("<(/?)", rf"<\1{prefix}", XML.format(**ANIMAL, name="cat"))
    text = text.replace("annotation>", f"annotation{attribute}>", 1)
    for case in (str, lambda text: re.sub(r"<[^ >]+", lambda tag: tag[0].upper(), text)):
        (tmp_path / "a.xml").write_text(case(text))
        photo(tmp_path / "a.jpg")
        (found,), _ = read(tmp_path)
        assert [one.box for one in found.objects] == [(2, 1, 6, 4)]


def test_other_xml_is_no_image_without_objects(tmp_path):
    native = '<annotations><image name="a.jpg" width="8" height="6"><box label="cat" xtl="1"/></image></annotations>'
    (tmp_path / "a.xml").write_text(native)  # CVAT's own format
    photo(tmp_path / "a.jpg")
    images, problems = read(tmp_path)
    assert not images and problems.counts == {"bad annotation": 1}
    assert "must be <annotation>, and is <annotations>" in problems.lines[0]
