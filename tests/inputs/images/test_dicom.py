"""What a user may rely on about DICOM: pictures as a viewer shows them, and nothing of whose they are."""

import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from networks import rest_exhaustive, tiny_cnn
from PIL import Image

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, load_image_folder
from sktransfer.inputs import ImagePreprocessing, make_reader
from sktransfer.inputs.images._decoding import decode

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.pixels import apply_rescale, apply_windowing  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian  # noqa: E402

THEIRS = Path(pydicom.__file__).parent / "data" / "test_files"
HERE = "'x.dcm' (row 3)"
PATIENT = "Confidential^Name"


def dicom(pixels, syntax=ExplicitVRLittleEndian, **tags):
    """A file as an instrument writes it, with a patient's name."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PatientName, dataset.PatientID = PATIENT, "4711"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True) if hasattr(dataset, "SOPClassUID") else _save(dataset, file)
    return file.getvalue()


def read_or_refused(image, channels):
    try:
        return np.asarray(decode(image, HERE, channels))
    except ValueError as error:
        return str(error)


def _save(dataset, file):
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.save_as(file, enforce_file_format=True)


def ramp(low=0, high=4095, dtype=np.uint16):
    return np.linspace(low, high, 24 * 32).astype(dtype).reshape(24, 32)


def shown(content, **how):
    """Grey as it is read, from 0 to 1."""
    found = decode(content, HERE, 1, **how)
    return found[..., 0] / 65535 if how.get("stored") is None else found[..., 0]


# What is black and what is white


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_first_window_is_applied_to_rescaled_values_as_pydicom_does(function):
    pixels = ramp(-2000, 2000, np.int16)
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "VOILUTFunction": function}
    content = dicom(pixels, WindowCenter=[40, 300], WindowWidth=[400, 1500], **tags)
    dataset = pydicom.dcmread(io.BytesIO(content))
    theirs = apply_windowing(apply_rescale(dataset.pixel_array, dataset), dataset)
    low, high = (value * 2 - 1000 for value in (-32768, 32767))
    np.testing.assert_allclose(shown(content), (theirs - low) / (high - low), atol=1e-5)


def test_a_window_of_hounsfield_units_shows_soft_tissue():
    hounsfield = np.array([[-1000, -160, 40, 240, 3000]] * 4, dtype=np.int16)
    content = dicom(hounsfield + 1024, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    np.testing.assert_allclose(shown(content)[0], [0, 0, 0.5, 1, 1], atol=0.01)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("width", [0, -400, 0.5])
def test_a_window_of_a_width_that_dicom_does_not_allow_is_ignored_with_a_warning(width, function):
    content = dicom(ramp(), WindowCenter=1000, WindowWidth=width, VOILUTFunction=function)
    if width == 0.5 and function != "LINEAR":
        np.testing.assert_array_equal(shown(content) > 0.5, ramp() > 1000)
        return
    with pytest.warns(UserWarning, match=r"width that DICOM does not allow; expected at least 1.*pixel_range") as told:
        found = shown(content)
    np.testing.assert_array_equal(found, shown(dicom(ramp())))
    assert "Confidential" not in str(told[0].message)


def test_of_several_windows_the_first_that_dicom_allows_is_applied():
    several = dicom(ramp(), WindowCenter=[1, 1000, 50], WindowWidth=[0, 400, 100])
    np.testing.assert_array_equal(shown(several), shown(dicom(ramp(), WindowCenter=1000, WindowWidth=400)))


def test_an_impossible_window_does_not_matter_where_a_person_says_black_and_white():
    content = dicom(ramp(), WindowCenter=1000, WindowWidth=0)
    np.testing.assert_array_equal(shown(content, stored=(0, 4095)), ramp())


def test_low_is_white_in_monochrome1():
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    plain = shown(dicom(ramp(), **window))
    np.testing.assert_allclose(
        shown(dicom(ramp(), PhotometricInterpretation="MONOCHROME1", **window)), 1 - plain, atol=2e-5
    )
    assert plain[0, 0] < 0.01 < 0.99 < plain[-1, -1]


def test_without_a_window_the_percentiles_are_black_and_white_and_padding_does_not_count():
    pixels = ramp(1000, 2000)
    low, high = np.percentile(pixels, (0.5, 99.5))
    np.testing.assert_allclose(shown(dicom(pixels)), ((pixels - low) / (high - low)).clip(0, 1), atol=1e-4)
    padded = pixels.copy()
    padded[:12] = 0
    found = shown(dicom(padded, PixelPaddingValue=0))
    low, high = np.percentile(padded[12:], (0.5, 99.5))
    np.testing.assert_allclose(found[12:], ((padded[12:] - low) / (high - low)).clip(0, 1), atol=1e-4)
    assert not found[:12].any()


def test_8_bits_without_a_window_stay_as_they_are():
    pixels = ramp(10, 99, np.uint8)
    np.testing.assert_allclose(shown(dicom(pixels)), pixels / 255, atol=1e-5)


def test_a_table_of_the_file_is_applied():
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [16, 0, 8], np.arange(255, -1, -17, dtype=np.uint16).tobytes()
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    content = dicom(pixels, BitsStored=4, HighBit=3, VOILUTSequence=Sequence([table]))
    np.testing.assert_allclose(shown(content).ravel(), np.arange(15, -1, -1) / 15, atol=1e-4)


def test_pixel_range_is_a_window_in_the_units_of_the_file():
    hounsfield = ramp(-1024, 3000, np.int16)
    content = dicom(hounsfield, RescaleSlope=1, RescaleIntercept=0, WindowCenter=500, WindowWidth=10)
    np.testing.assert_array_equal(shown(content, stored=(-160, 240)), hounsfield.clip(-160, 240))
    inverse = dicom(hounsfield, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(shown(inverse, stored=(-160, 240)), 80 - hounsfield.clip(-160, 240))
    reader = make_reader("images", ImagePreprocessing(None, (24, 32), channels=1), None, (-160, 240))
    loaded = reader.learn([content]).load(0)
    np.testing.assert_allclose(loaded[0], (hounsfield.clip(-160, 240) + 160) / 400, atol=1e-6)
    far = make_reader("images", ImagePreprocessing(None, (24, 32), channels=1), None, (20000, 30000))
    with pytest.raises(ValueError, match="Got image values from -1024 to 3000; expected about 20000 to 30000"):
        far.learn([content]).load(0)


def test_colours_are_colours():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(decode(dicom(pixels), HERE, 3)), pixels)
    deep = pixels.astype(np.uint16) * 16
    found = decode(dicom(deep, BitsStored=12, HighBit=11), HERE, 3)
    np.testing.assert_allclose(found / 65535, deep / 4095, atol=1e-4)


# Files that others wrote


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm"])
def test_files_of_scanners_are_read_and_their_copies_are_alike(name):
    pixels = decode(str(THEIRS / name), HERE, 1)
    dataset = pydicom.dcmread(THEIRS / name)
    values = apply_rescale(dataset.pixel_array, dataset)
    assert pixels.shape == (*values.shape, 1)
    order = np.argsort(values.ravel(), kind="stable")
    assert (np.diff(pixels.ravel()[order].astype(int)) >= 0).all()  # brighter where the value is larger
    if name.startswith("MR_small_"):
        np.testing.assert_array_equal(pixels, decode(str(THEIRS / "MR_small.dcm"), HERE, 1))


@pytest.mark.parametrize("name", ["SC_rgb_rle.dcm", "SC_rgb_dcmtk_+eb+cr.dcm", "SC_ybr_full_422_uncompressed.dcm"])
def test_colours_of_other_writers_are_red_green_and_blue(name):
    pixels = np.asarray(decode(str(THEIRS / name), HERE, 3))
    assert pixels.shape == (100, 100, 3)
    assert pixels[5, 50].argmax() == 0  # the bars of the test picture begin with red
    assert pixels[5, 50].max() > 200


@pytest.mark.exhaustive
def test_each_file_that_comes_with_pydicom_is_read_or_refused_in_one_sentence():
    found = [read_or_refused(str(file), 3) for file in sorted(THEIRS.glob("*.dcm"))]
    read = [one for one in found if not isinstance(one, str)]
    assert len(read) > 30
    assert {one.dtype.name for one in read} == {"uint8", "uint16"}
    assert all(one.startswith(f"Got {HERE}") and len(one) < 600 for one in found if isinstance(one, str))


# Estimators


def sized():
    network = tiny_cnn()
    network.preprocessing = ImagePreprocessing(crop=(16, 16))
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scans of two classes, which differ in how bright they are."""
    root = tmp_path_factory.mktemp("scans")
    rng = np.random.default_rng(0)
    for label in ("dark", "light"):
        (root / label).mkdir()
        for number in range(10):
            pixels = rng.integers(0, 200, (16, 16), dtype=np.uint16)
            pixels += 1500 if label == "light" else 400
            (root / label / f"{number}.dcm").write_bytes(dicom(pixels, WindowCenter=1000, WindowWidth=2000))
    return root


def test_a_folder_of_scans_is_learned(folder):
    scans = load_image_folder(folder)
    assert len(scans.data) == 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = FineTunedClassifier(sized, random_state=0).fit(scans.data, scans.target)
        assert model.score(scans.data, scans.target) == 1.0


def test_scans_are_read_alike_as_paths_bytes_and_open_files_and_beside_other_pictures(folder, tmp_path):
    paths = load_image_folder(folder).data[:4]
    contents = [Path(path).read_bytes() for path in paths]

    def features(X):
        return PretrainedFeatureExtractor(sized, random_state=0).fit(X).transform(X)

    expected = features(paths)
    np.testing.assert_allclose(features(contents), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(features([io.BytesIO(one) for one in contents]), expected, rtol=1e-5, atol=1e-6)
    Image.fromarray(np.full((16, 16), 60000, dtype=np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "plain.png")
    mixed = features([*paths, str(tmp_path / "deep.png"), str(tmp_path / "plain.png")])
    np.testing.assert_allclose(mixed[:4], expected, rtol=1e-5, atol=1e-6)


def test_scans_after_a_fit_that_saw_none_are_read(folder, paths):
    fitted = PretrainedFeatureExtractor(sized, random_state=0).fit(paths)
    assert np.isfinite(fitted.transform(list(load_image_folder(folder).data[:3]))).all()


# What is refused


def damaged(**tags):
    return dicom(ramp(), **tags)


def without(name):
    dataset = pydicom.dcmread(io.BytesIO(dicom(ramp())))
    delattr(dataset, name)
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (lambda: without("PixelData"), "it is a DICOM file without pixel data"),
        (lambda: without("Rows"), "does not say its rows and columns"),
        (lambda: without("BitsAllocated"), "cut short or damaged"),
        (lambda: damaged(NumberOfFrames=2, Rows=12), "of 2 frames; expected one"),
        (lambda: damaged(Rows=25), "cut short or damaged"),
        (lambda: dicom(ramp())[:-100], "cut short or damaged|not a whole DICOM file"),
        (lambda: damaged(PhotometricInterpretation="ARGB"), "interpretation is not known: 'ARGB'"),
        (lambda: damaged(Rows=60000, Columns=60000), "60000 x 60000 pixels"),
        (lambda: (THEIRS / "MR_small_jpeg_ls_lossless.dcm").read_bytes(), "packed as JPEG-LS Lossless .*pylibjpeg"),
        (lambda: (THEIRS / "MR_truncated.dcm").read_bytes(), "cut short or damaged"),
    ],
    ids=["no pixels", "no rows", "no bits", "frames", "rows", "cut", "kind", "bomb", "codec", "theirs"],
)
def test_what_is_no_picture_is_refused_with_its_row_and_nobody_is_named(content, why):
    with pytest.raises(ValueError, match=rf"^(Got|Refused) 'x\.dcm' \(row 3\).*({why})") as caught:
        decode(content(), HERE, 3)
    chain = str(caught.value) + repr(caught.value.__cause__)
    assert "Confidential" not in chain
    assert "4711" not in chain
    assert len(str(caught.value)) < 600


def test_a_packed_file_that_becomes_far_too_much_is_refused(monkeypatch):
    from sktransfer.inputs.images import _dicom

    assert decode(str(THEIRS / "image_dfl.dcm"), HERE, 1).shape == (512, 512, 1)
    monkeypatch.setattr(_dicom, "_UNPACKED", 2**16)
    with pytest.raises(ValueError, match="it unpacks to far more than a picture"):
        decode(str(THEIRS / "image_dfl.dcm"), HERE, 1)


@pytest.mark.parametrize("seed", rest_exhaustive(range(20), 0))
def test_a_file_with_a_wrong_byte_is_read_or_refused_in_one_sentence(seed):
    rng = np.random.default_rng(seed)
    content = dicom(ramp(), WindowCenter=40, WindowWidth=400, RescaleSlope=1, RescaleIntercept=0)
    for _ in range(40):
        wrong = bytearray(content)
        wrong[rng.integers(128, 128 + 700)] = rng.integers(256)
        found = read_or_refused(bytes(wrong), 1)
        assert not isinstance(found, str) or (len(found) < 600 and "Confidential" not in found)


def test_nothing_that_pydicom_warns_of_reaches_the_program(capsys, caplog):
    content = dicom(ramp()).replace(b"1.2.3", b"4711 ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(content, HERE, 1)
    assert not caplog.records
    assert capsys.readouterr().err == ""


def test_where_pydicom_is_missing_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match=r'pydicom.*pip install "sktransfer\[scientific\]"'):
        decode(dicom(ramp()), HERE, 3)
