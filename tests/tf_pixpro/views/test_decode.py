"""The decoder: every mode and format against Pillow, orientation, bits, and what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps, features

from tf_evonorm.mistakes import Mistake
from tf_pixpro.views import decode, orientation

Y, X = np.mgrid[0:24, 0:31]
RGB = np.stack([X * 8, Y * 10, (X + Y) * 4], -1).astype(np.uint8)
GREY, ALPHA = RGB[..., 0], (X * 8).astype(np.uint8)
DEEP = (X * 2000 + Y * 37).astype(np.uint16)
DEEP_RGB = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], -1)


def saved(image, kind, **options) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def deep_png(values, colour_type):
    """A PNG of 16 bits per channel, which Pillow cannot write in colour."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def with_alpha(*planes):
    return Image.merge("RGBA" if len(planes) == 4 else "LA", [Image.fromarray(plane) for plane in planes])


def cases():
    bit, palette = Image.fromarray(GREY).convert("1"), Image.fromarray(RGB).quantize(64)
    cmyk, rgba = Image.fromarray(RGB).convert("CMYK"), with_alpha(*np.moveaxis(RGB, -1, 0), ALPHA)
    rotated = [palette.transpose(Image.Transpose.ROTATE_180)]
    rows = {
        "jpeg": saved(RGB, "JPEG"),
        "jpeg 4:4:4": saved(RGB, "JPEG", quality=95, subsampling=0),
        "jpeg progressive": saved(RGB, "JPEG", progressive=True),
        "jpeg grey": saved(GREY, "JPEG"),
        "jpeg CMYK": saved(cmyk, "JPEG"),
        "png 1-bit": saved(bit, "PNG"),
        "png grey": saved(GREY, "PNG"),
        "png grey alpha": saved(with_alpha(GREY, ALPHA), "PNG"),
        "png grey transparent": saved(GREY, "PNG", transparency=0),
        "png palette": saved(palette, "PNG"),
        "png palette 3 bits": saved(Image.fromarray(RGB).quantize(8), "PNG"),
        "png palette transparent": saved(palette, "PNG", transparency=3),
        "png palette alpha": saved(palette, "PNG", transparency=bytes(range(64))),
        "png RGB": saved(RGB, "PNG"),
        "png RGB transparent": saved(RGB, "PNG", transparency=(0, 0, 0)),
        "png RGBA": saved(rgba, "PNG"),
        "png RGB 16": deep_png(DEEP_RGB, 2),
        "png grey alpha 16": deep_png(np.stack([DEEP, DEEP], -1), 4),
        "png RGBA 16": deep_png(np.concatenate([DEEP_RGB, DEEP[..., None]], -1), 6),
        "gif": saved(palette, "GIF"),
        "gif grey": saved(GREY, "GIF"),
        "gif transparent": saved(palette, "GIF", transparency=3),
        "gif animated": saved(palette, "GIF", save_all=True, append_images=rotated),
        "bmp 1-bit": saved(bit, "BMP"),
        "bmp grey": saved(GREY, "BMP"),
        "bmp palette": saved(palette, "BMP"),
        "bmp palette of 8": saved(Image.fromarray(RGB).quantize(8), "BMP"),
        "bmp RGB": saved(RGB, "BMP"),
        "bmp RGBA": saved(rgba, "BMP"),
        "webp": saved(RGB, "WEBP"),
        "webp alpha": saved(rgba, "WEBP", lossless=True, exact=True),
        "webp animated": saved(RGB, "WEBP", save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())]),
        "tiff": saved(RGB, "TIFF"),
        "tiff RGBA deflate": saved(rgba, "TIFF", compression="tiff_deflate"),
        "tiff CMYK lzw": saved(cmyk, "TIFF", compression="tiff_lzw"),
        "tiff 1-bit G4": saved(bit, "TIFF", compression="group4"),
        "tiff palette": saved(palette, "TIFF"),
        "jpeg 2000": saved(RGB, "JPEG2000"),
        "ppm": saved(RGB, "PPM"),
    }
    if features.check("avif"):
        rows["avif"] = saved(RGB, "AVIF")
    return rows


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_every_format_and_mode_is_as_pillow_decodes_it(name):
    data = CASES[name]
    image = Image.open(io.BytesIO(data))
    image.info.pop("transparency", None)
    expected = np.asarray(image.convert("RGB"))
    graph = tf.function(decode.decode_image, input_signature=[tf.TensorSpec([], tf.string)])
    np.testing.assert_array_equal(graph(data), expected)
    np.testing.assert_array_equal(decode.decode_array(data), expected)
    np.testing.assert_array_equal(decode.image_size(tf.constant(data)), expected.shape[:2])
    header = decode.read_header(data)
    assert (header.height, header.width) == header.upright == expected.shape[:2]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [16, 12, 10])
def test_deep_grey_is_scaled_by_its_range(kind, bits):
    data = saved(DEEP, kind)
    expected = np.minimum(np.floor(DEEP.astype(np.float64) * 256 / 2**bits), 255).astype(np.uint8)
    expected = np.stack([expected] * 3, -1)
    np.testing.assert_array_equal(decode.decode_image(data, bits=bits), expected)
    np.testing.assert_array_equal(decode.decode_array(data, bits=bits), expected)


def test_bits_of_colours_and_of_shallow_images():
    expected = np.minimum(DEEP_RGB // 16, 255).astype(np.uint8)
    np.testing.assert_array_equal(decode.decode_image(deep_png(DEEP_RGB, 2), bits=12), expected)
    np.testing.assert_array_equal(decode.decode_image(saved(RGB, "PNG"), bits=12), RGB)
    np.testing.assert_array_equal(decode.decode_array(saved(RGB, "PNG"), bits=12), RGB)
    with pytest.raises(Mistake, match="Save it as gray"):
        decode.decode_array(deep_png(DEEP_RGB, 2), bits=12)


def exif_of(number, endian):
    directory = struct.pack(endian + "HHHIHH", 1, orientation.ORIENTATION, 3, 1, number, 0)
    return {"<": b"II*\0", ">": b"MM\0*"}[endian] + struct.pack(endian + "I", 8) + directory + b"\0" * 4


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PNG at its end", "WEBP", "TIFF"])
def test_orientation_is_applied_as_pillow_does(kind, endian):
    for number in range(1, 9):
        exif = b"Exif\0\0" + exif_of(number, endian)
        if kind == "TIFF":
            data = saved(RGB, kind, tiffinfo={orientation.ORIENTATION: number})
        elif kind == "PNG at its end":
            plain = saved(RGB, "PNG")
            data = plain[:-12] + chunk(b"eXIf", exif_of(number, endian)) + plain[-12:]
        else:
            data = saved(RGB, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
        image = Image.open(io.BytesIO(data))
        expected = np.asarray(ImageOps.exif_transpose(image))
        np.testing.assert_array_equal(decode.decode_image(data), expected, err_msg=str(number))
        np.testing.assert_array_equal(decode.decode_array(data), expected)
        assert decode.image_size(tf.constant(data), exif=True).numpy().tolist() == list(expected.shape[:2])
        if kind != "TIFF":
            assert decode.orientation(data).numpy() == decode.read_header(data).orientation == number
            assert decode.read_header(data).upright == expected.shape[:2]
            stored = np.asarray(Image.open(io.BytesIO(data)))
            np.testing.assert_array_equal(decode.decode_image(data, exif=False), stored)
            np.testing.assert_array_equal(decode.decode_array(data, exif=False), stored)


def test_damaged_exif_leaves_the_pixels_as_they_are():
    whole = exif_of(6, "<")
    plain = saved(RGB, "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(plain)))
    for length in range(len(whole) - 5):
        segment = b"Exif\0\0" + whole[:length]
        data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]
        np.testing.assert_array_equal(decode.decode_image(data), expected)
        np.testing.assert_array_equal(decode.decode_array(data), expected)
    for number in (0, 9, 65535):
        data = saved(RGB, "JPEG", exif=b"Exif\0\0" + exif_of(number, "<"))
        np.testing.assert_array_equal(decode.decode_image(data), expected)


def test_a_saved_model_decodes_what_tensorflow_can(tmp_path):
    class Server(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
        def __call__(self, image_bytes):
            return decode.decode_image(image_bytes, pillow=False)

    tf.saved_model.save(Server(), str(tmp_path / "server"))
    server = tf.saved_model.load(str(tmp_path / "server"))
    names = [n for n in CASES if n.split()[0] in ("jpeg", "png", "bmp") and n not in ("jpeg 2000", "bmp 1-bit")]
    for name in [*names, "gif", "gif animated"]:
        np.testing.assert_array_equal(server(CASES[name]), decode.decode_array(CASES[name]), err_msg=name)
    rotated = saved(RGB, "JPEG", exif=b"Exif\0\0" + exif_of(6, ">"))
    assert server(rotated).shape == (31, 24, 3)
    with pytest.raises(tf.errors.InvalidArgumentError):
        server(CASES["tiff"])


def test_what_is_no_image_is_refused():
    graph = tf.function(decode.decode_image, input_signature=[tf.TensorSpec([], tf.string)])
    for data in (b"", b"no image", saved(RGB, "PNG")[:60], saved(RGB, "JPEG")[:300], b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        with pytest.raises(Mistake, match="bytes of an image are needed"):
            decode.decode_array(data)
        with pytest.raises(tf.errors.InvalidArgumentError):
            graph(data)
    for values in (DEEP.astype(np.float32), DEEP.astype(np.int32)):
        with pytest.raises(Mistake, match="no range to scale by"):
            decode.decode_array(saved(values, "TIFF"))
    with pytest.raises(ValueError, match="bits must be 9 to 16"):
        decode.decode_image(b"", bits=8)


def test_a_large_image_is_refused_or_decoded_by_choice(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow's own limit must not end anything
    data = saved(RGB, "PNG")
    with pytest.raises(Mistake, match=r"may have 700 pixels\. Received 31x24, 744 pixels"):
        decode.decode_array(data, max_pixels=700)
    np.testing.assert_array_equal(decode.decode_array(data, max_pixels=None), RGB)
    assert decode.read_header(data).width == 31 and Image.MAX_IMAGE_PIXELS == 10
