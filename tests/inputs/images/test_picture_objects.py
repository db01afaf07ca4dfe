"""What a user may rely on when X holds opened pictures: the right pixels, however many rows and threads share them."""

import io
import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from networks import tiny_cnn
from PIL import Image

from sktransfer import PretrainedFeatureExtractor
from sktransfer.inputs import ImagePreprocessing, make_reader
from sktransfer.inputs._file_locks import lock_number
from sktransfer.inputs.images import _picture_locks

SIDE = 64


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def encoded(pixels, form="PNG", **more):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **more)
    return buffer.getvalue()


def samples_of(X):
    return make_reader("images", ImagePreprocessing(crop=(SIDE, SIDE)), None, "auto").learn(X)


def pixels_of(samples, row):
    return samples.load(row).permute(1, 2, 0).numpy()


class Slow(io.BytesIO):
    """A file that others may use between any two of its bytes, and that tells whether they did."""

    def __init__(self, data):
        super().__init__(data)
        self.inside = 0
        self.disturbed = False

    def read(self, size=-1):
        self.inside += 1
        self.disturbed |= self.inside > 1
        threading.Event().wait(0.001)
        data = super().read(size)
        self.inside -= 1
        return data


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "GIF", "BMP"])
def test_one_opened_picture_in_many_rows_is_right_in_each_thread(form):
    data = encoded(noise(0), form)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    for _ in range(5):
        samples = samples_of([Image.open(Slow(data))] * 16)
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(lambda row, samples=samples: pixels_of(samples, row), range(16)):
                np.testing.assert_array_equal(found, expected)


def test_a_picture_on_its_side_is_turned_in_each_thread():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(np.rot90(noise(0)).copy(), exif=exif)
    for _ in range(20):
        samples = samples_of([Image.open(Slow(data))] * 8)
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(lambda row, samples=samples: pixels_of(samples, row), range(8)):
                np.testing.assert_array_equal(found, noise(0))


def test_pictures_that_share_a_file_handle_are_read_one_after_another():
    file = Slow(encoded(noise(0)))
    samples = samples_of([Image.open(file) for _ in range(8)])
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda row: pixels_of(samples, row), range(8)):
            np.testing.assert_array_equal(found, noise(0))
    assert not file.disturbed


def test_pictures_are_digested_and_loaded_one_after_another():
    for _ in range(10):
        samples = samples_of([Image.open(Slow(encoded(noise(0))))] * 8)
        with ThreadPoolExecutor(8) as pool:
            digests = [pool.submit(samples.digest, row) for row in range(0, 8, 2)]
            pictures = [pool.submit(pixels_of, samples, row) for row in range(1, 8, 2)]
            for picture in pictures:
                np.testing.assert_array_equal(picture.result(), noise(0))
            assert len({digest.result() for digest in digests}) == 1


def test_different_pictures_do_not_wait_for_each_other():
    """While one is held, another is loaded; of the 256 locks two of so many share one."""
    held, *others = [Image.open(io.BytesIO(encoded(noise(seed)))) for seed in range(30)]
    place = lock_number
    other = next(p for p in others if place(p) != place(held) and place(p.fp) != place(held.fp))
    samples = samples_of([other])
    with _picture_locks.alone_with(held), ThreadPoolExecutor(1) as pool:
        np.testing.assert_array_equal(
            pool.submit(pixels_of, samples, 0).result(timeout=60), np.asarray(other.convert("RGB"))
        )


def test_an_error_while_a_picture_is_read_leaves_no_lock():
    data = encoded(noise(0))
    picture = Image.open(io.BytesIO(data[: len(data) // 2]))
    samples = samples_of([picture])
    for _ in range(3):
        with pytest.raises(ValueError, match="the picture in row 0"):
            samples.load(0)
    with _picture_locks.alone_with(picture):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking beside threads is what this is about
def test_a_forked_child_reads_pictures_that_a_thread_of_its_parent_held():
    picture = Image.fromarray(noise(0))
    samples = samples_of([picture])
    with _picture_locks.alone_with(picture):
        context = multiprocessing.get_context("fork")
        child = context.Process(target=samples.load, args=(0,), daemon=True)
        child.start()
        child.join(60)
        ended = child.exitcode
        child.kill()
    assert ended == 0


# What becomes of the objects


def test_a_picture_whose_file_is_closed_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(encoded(noise(0)))
    with path.open("rb") as file:
        left = Image.open(file)
    closed = Image.open(path)
    closed.close()
    for picture in (left, closed):
        with pytest.raises(ValueError, match=r"^Got the picture in row 1, whose file is closed.*load\(\)"):
            samples_of([Image.fromarray(noise(0)), picture]).load(1)


def test_a_picture_that_was_loaded_before_its_file_was_closed_is_read(tmp_path):
    (tmp_path / "x.png").write_bytes(encoded(noise(0)))
    with (tmp_path / "x.png").open("rb") as file:
        picture = Image.open(file)
        picture.load()
    np.testing.assert_array_equal(pixels_of(samples_of([picture]), 0), noise(0))


@pytest.mark.parametrize("form", ["GIF", "TIFF"])
@pytest.mark.parametrize("frame", [0, 2])
def test_a_picture_of_several_frames_is_read_where_it_stands_and_stays_there(form, frame):
    frames = [Image.fromarray(np.full((SIDE, SIDE), level, dtype=np.uint8)) for level in (200, 100, 50)]
    buffer = io.BytesIO()
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:])
    picture = Image.open(buffer)
    picture.seek(frame)
    samples = samples_of([picture, picture])
    for row in (0, 1):
        assert (pixels_of(samples, row) == (200, 100, 50)[frame]).all()
        samples.digest(row)
    assert picture.tell() == frame
    picture.seek(1)
    assert (np.asarray(picture.convert("L")) == 100).all()


def test_a_drafted_picture_stays_as_its_owner_made_it():
    picture = Image.open(io.BytesIO(encoded(np.full((400, 400, 3), 90, dtype=np.uint8), "JPEG")))
    picture.draft("L", (100, 100))
    assert (picture.mode, picture.size) == ("L", (100, 100))
    assert abs(pixels_of(samples_of([picture]), 0).astype(int) - 90).max() <= 2
    assert (picture.mode, picture.size) == ("L", (100, 100))


def test_pictures_are_neither_turned_nor_converted_for_their_owner():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(io.BytesIO(encoded(noise(0)[:32, :, 0].copy(), "TIFF", compression="tiff_lzw")))
    wide = Image.fromarray(noise(1)[..., 0].astype(np.uint16))
    turned = Image.open(io.BytesIO(encoded(noise(2)[:32], exif=exif)))
    samples = samples_of([picture, wide, turned])
    for row in range(3):
        samples.load(row)
        samples.digest(row)
    assert [(p.mode, p.size) for p in (picture, wide, turned)] == [
        ("L", (64, 32)),
        ("I;16", (64, 64)),
        ("RGB", (64, 32)),
    ]
    assert turned.getexif()[0x0112] == 6
    assert np.array_equal(np.asarray(wide), noise(1)[..., 0])
    pickle.dumps(picture)


def test_features_of_repeated_pictures_are_those_of_their_arrays():
    network = tiny_cnn()
    network.preprocessing = ImagePreprocessing(crop=(SIDE, SIDE))
    rows = np.repeat(np.arange(4), 8)
    opened = [Image.open(io.BytesIO(encoded(noise(seed)))) for seed in range(4)]
    extractor = PretrainedFeatureExtractor(network, feature_cache=None, n_jobs=4, batch_size=2)
    found = extractor.fit_transform([opened[row] for row in rows])
    np.testing.assert_allclose(found, extractor.transform([noise(row) for row in rows]), rtol=1e-5, atol=1e-5)
