"""Several events a clock: which of R streams an event comes in, and its address there.

A population's events come in R streams (``hardware.event_streams``), one event of each in a clock. The stream of an
event is told by the lowest bits of its unit, which is its address, or of a picture its channel:

    unit = address >> place_bits,  stream = unit mod R,  address in the stream = unit div R above the place

R is a power of two, so that nothing is divided. With R = 1 an address stays what it is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int64]


def stream_bits(streams: int) -> int:
    """Bits of a stream's number."""
    return streams.bit_length() - 1


def stream_of(address: Int, place_bits: int, streams: int) -> Int:
    """int64, as ``address``: the stream in which each event comes."""
    return (address >> place_bits) & (streams - 1)


def address_within(address: Int, place_bits: int, streams: int) -> Int:
    """int64, as ``address``: the address of each event in its stream."""
    unit = address >> (place_bits + stream_bits(streams))
    return (unit << place_bits) | (address & ((1 << place_bits) - 1))


def span_within(span: int, place_bits: int, streams: int) -> int:
    """Addresses that an event of a stream can have, of ``span`` in all."""
    return -(-(span >> place_bits) // streams) << place_bits


def interleaved(stream: Int) -> Int:
    """int64 (n,): an order in which the streams take turns as long as each has something, each in its own order.

    stream : int64 (n,); of each event, in the order in which they come.
    """
    order = np.argsort(stream, kind="stable")
    turn = np.empty(stream.size, np.int64)
    turn[order] = np.arange(stream.size) - np.searchsorted(stream[order], stream[order])
    return np.lexsort((stream, turn))
