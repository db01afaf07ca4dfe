"""Detect damage that libsndfile lets pass: sound files that end early or are damaged, and come out shorter.

Each check looks at a file's own account of itself, never at what it sounds like. Two kinds of damage cannot be seen:
changed samples in a WAV or AIFF, and changed bits within a frame of an MP3, which have no checksums.
"""

import io
import os
import zlib
from pathlib import Path
from typing import IO

# Formats that are opened, of the two dozen that libsndfile knows, as it calls them; and those to name to a person.
FORMATS = ("AIFF", "FLAC", "MP3", "OGG", "RF64", "WAV", "WAVEX")
NAMES = "AIFF, FLAC, MP3, OGG or WAV"

# Bytes of the largest OGG or MP3 that is looked at; an hour has a tenth of them.
_MOST_BYTES = 2**31

# What those write for the length of a WAV who cannot know it yet: ffmpeg and SoX, into a pipe.
_NOT_YET_KNOWN = (0x7FFFF000, 0xFFFFFFFF)

# Samples that an encoder of MP3 may add at both ends, which decoders take away again.
_ENCODER_ADDS = 8 * 1152

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def opened(sound: str | bytes) -> IO[bytes]:
    """Open a file for reading.

    Parameters
    ----------
    sound : str or bytes
        Its path, or its content.

    Returns
    -------
    binary file
        At its start.
    """
    return Path(sound).open("rb") if isinstance(sound, str) else io.BytesIO(sound)


def check_whole(sound: str | bytes) -> None:
    """Refuse a file that is not a sound, is shorter than it says, or whose checksums are wrong.

    Parameters
    ----------
    sound : str or bytes
        Path or content of the file. FLAC is left to its decoder, which looks at its own checksums.

    Raises
    ------
    OSError
        If it is.
    """
    with opened(sound) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(12)
        if not head:
            raise OSError("it is empty")
        if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
            _check_chunks(file, size, b"data", "little")
        elif (head[:4] == b"RIFX" and head[8:] == b"WAVE") or (head[:4] == b"FORM" and head[8:11] == b"AIF"):
            _check_chunks(file, size, b"SSND" if head[:4] == b"FORM" else b"data", "big")
        elif head[:4] == b"OggS":
            _check_pages(_all_of(file, size))
        elif head[:3] == b"ID3" or (head[0] == 0xFF and head[1:2] >= b"\xe0"):
            count_mpeg(_all_of(file, size))
        elif head[:4] != b"fLaC":
            raise OSError("it does not begin like a sound")


def _all_of(file: IO[bytes], size: int) -> bytes:
    if size > _MOST_BYTES:
        raise OSError(f"it has {size} bytes, and the limit is {_MOST_BYTES}")
    file.seek(0)
    return file.read()


def _check_chunks(file: IO[bytes], size: int, wanted: bytes, order: str) -> None:
    """Walk through the chunks of a WAV or AIFF up to its samples, and see whether all that it claims are there."""
    start, large = 12, None
    while start + 8 <= size:
        file.seek(start)
        name, length = file.read(4), int.from_bytes(file.read(4), order)  # type: ignore[arg-type]
        if name == b"ds64":  # lengths of a WAV of more than 4 GB
            large = int.from_bytes(file.read(16)[8:], "little")
        if name == wanted:
            if length == 0xFFFFFFFF and large is not None:
                length = large
            elif length in _NOT_YET_KNOWN:
                return
            if start + 8 + length > size:
                raise OSError(f"it holds {size - start - 8} of {length} bytes of samples")
            return
        start += 8 + length + length % 2
    raise OSError("it ends before its samples")


def _check_pages(data: bytes) -> None:
    """Check the checksum, number and end of each page of an OGG; libogg leaves out those that are damaged."""
    at, numbers, ended = 0, dict[bytes, int](), dict[bytes, bool]()
    while at < len(data):
        head = data[at : at + 27]
        if len(head) < 27 or head[:4] != b"OggS":
            raise OSError(f"its page at byte {at} is damaged or cut short")
        lengths = data[at + 27 : at + 27 + head[26]]
        end = at + 27 + head[26] + sum(lengths)
        if len(lengths) < head[26] or end > len(data):
            raise OSError("its last page is cut short")
        page = data[at : at + 22] + b"\0\0\0\0" + data[at + 26 : end]
        stream, number = head[14:18], int.from_bytes(head[18:22], "little")
        if _checksum(page) != int.from_bytes(head[22:26], "little"):
            raise OSError(f"its page at byte {at} is damaged: its checksum is wrong")
        if number != numbers.get(stream, number - 1) + 1:
            raise OSError(f"pages are missing before byte {at}")
        numbers[stream], ended[stream], at = number, bool(head[5] & 4), end
    if not all(ended.values()):
        raise OSError("it ends before its last page")


def _checksum(page: bytes) -> int:
    """Return the CRC of OGG: that of zlib with all bits in the other order, and without its inversions."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


_KILOBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def count_mpeg(data: bytes) -> int:
    """Count the samples of an MP3 by its frames, as far as they follow upon each other.

    Parameters
    ----------
    data : bytes
        The file.

    Returns
    -------
    int
        Samples of each channel, with those that the encoder has added.

    Raises
    ------
    OSError
        If its last frame is cut short.
    """
    at, count = 0, 0
    if data[:3] == b"ID3":
        length = 0
        for byte in data[6:10]:
            length = length << 7 | byte & 0x7F
        at = 10 + length
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] & 0xE6 == 0xE2:  # layer III
        version, kilobits, rate = data[at + 1] >> 3 & 3, data[at + 2] >> 4, data[at + 2] >> 2 & 3
        if version == 1 or kilobits in (0, 15) or rate == 3:
            break
        samples = 1152 if version == 3 else 576
        length = samples * 125 * _KILOBITS[version == 3][kilobits] // _RATES[version][rate] + (data[at + 2] >> 1 & 1)
        if at + length > len(data):
            raise OSError("its last frame is cut short")
        at, count = at + length, count + samples
    return count


def check_length(sound: str | bytes, n_samples: int) -> None:
    """Refuse an MP3 that holds more than libsndfile will read: one of variable rate that does not say its length.

    Parameters
    ----------
    sound : str or bytes
        Path or content of the file.
    n_samples : int
        That libsndfile will read of each channel.

    Raises
    ------
    OSError
        If it is.
    """
    with opened(sound) as file:
        there = count_mpeg(file.read())
    if there > n_samples + _ENCODER_ADDS:
        raise OSError(f"it does not say its length: {n_samples} of about {there} samples would be read of it")
