"""The host link's frames: constants and byte layouts that the gateware and the host share (docs/link.md).

A frame on the line is ``COBS(payload + CRC) + 0x00``. The CRC is CRC-16/IBM-3740 (polynomial 0x1021, initial value
0xFFFF, nothing reflected), high byte first. Numbers in payloads are little-endian.
"""

from __future__ import annotations

import binascii
import enum
from dataclasses import dataclass

from cobs import cobs

PROTOCOL_VERSION = 1
BUFFER_BYTES = 512
CRC_BYTES = 2
HEADER_BYTES = 2
CHUNK_BYTES = BUFFER_BYTES - CRC_BYTES
IDENTITY_BYTES = 20
DELIMITER = b"\0"


class Command(enum.IntEnum):
    """First payload byte of what the host sends."""

    IDENTIFY = 0x01
    RESET = 0x02
    CHUNK = 0x03
    LAST_CHUNK = 0x04


class Reply(enum.IntEnum):
    """First payload byte of what the link sends."""

    IDENTITY = 0x81
    RESET_DONE = 0x82
    ACCEPTED = 0x83
    OUTPUT = 0x84
    LAST_OUTPUT = 0x85
    ERROR = 0xE0


class ErrorCode(enum.IntEnum):
    """Why the link refused a frame."""

    BAD_FRAME = 1
    BAD_CRC = 2
    UNKNOWN_COMMAND = 3
    BAD_LENGTH = 4
    OVERRUN = 5


ERROR_TEXT = {
    ErrorCode.BAD_FRAME: "a byte or frame arrived damaged",
    ErrorCode.BAD_CRC: "a frame's CRC is wrong",
    ErrorCode.UNKNOWN_COMMAND: "the command is not known",
    ErrorCode.BAD_LENGTH: "a chunk does not hold whole words, or a command has the wrong length",
    ErrorCode.OVERRUN: f"a chunk is longer than {CHUNK_BYTES} bytes or came before the one before was accepted",
}


class FrameError(ValueError):
    """Bytes that are not a frame."""


@dataclass(frozen=True)
class Frame:
    """A frame's payload, taken apart: kind, tag and data."""

    kind: int
    tag: int
    data: bytes = b""


def crc16(payload: bytes) -> bytes:
    """CRC-16/IBM-3740 of ``payload``, high byte first."""
    return binascii.crc_hqx(payload, 0xFFFF).to_bytes(CRC_BYTES, "big")


def encode_frame(frame: Frame) -> bytes:
    """Bytes for the line, delimiter included."""
    payload = bytes((frame.kind, frame.tag)) + frame.data
    return cobs.encode(payload + crc16(payload)) + DELIMITER


def decode_frame(line: bytes) -> Frame:
    """Frame from the bytes between two delimiters. Raises FrameError saying what is wrong."""
    try:
        content = cobs.decode(line)
    except cobs.DecodeError as error:
        raise FrameError(f"not COBS ({error})") from None
    payload, crc = content[:-CRC_BYTES], content[-CRC_BYTES:]
    if len(payload) < HEADER_BYTES:
        raise FrameError(f"{len(content)} bytes are too few")
    if crc16(payload) != crc:
        raise FrameError("wrong CRC")
    return Frame(payload[0], payload[1], payload[HEADER_BYTES:])


def word_bytes(width: int) -> int:
    """Bytes that a stream word of ``width`` bits takes in a payload."""
    return -(-width // 8)
