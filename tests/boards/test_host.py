"""The client against a board made of Python, which answers, damages, loses and delays."""

from collections.abc import Callable

import numpy as np
import pytest

from boards.host import HostClient, LinkError, SerialTransport, record_from
from boards.protocol import (
    CHUNK_BYTES,
    DELIMITER,
    Command,
    ErrorCode,
    Frame,
    Reply,
    decode_frame,
    encode_frame,
)
from codesign.errors import InputError
from codesign.layouts import DECISION, SPIKE, VALUE, input_word, output_word
from codesign.network import FrozenNetwork, InputCoding
from codesign.stimulus import Stimulus

HASH = "0123456789abcdef" + "0" * 48


def sidecar(network: FrozenNetwork) -> dict:
    words = {"input_word": input_word(network), "output_word": output_word(network)}
    return {
        "network_hash": HASH,
        "timesteps": network.timesteps,
        "n_outputs": network.n_outputs,
        "input_kinds": {"event": 0, "end": 1},
        "output_kinds": {"spike": SPIKE, "value": VALUE, "decision": DECISION},
        "protocol_errors": ["duplicate", "index_out_of_range", "early_tlast", "missing_tlast"],
        **{name: {"width": record.stream_width, "fields": record.describe()} for name, record in words.items()},
    }


def event_network(n_inputs: int = 6, timesteps: int = 3) -> FrozenNetwork:
    return FrozenNetwork.from_arrays([np.ones((n_inputs, 4), int)], threshold=3, timesteps=timesteps)


class PythonBoard:
    """Transport to a board that spikes with neuron 1 at timestep 2 and decides for class 1.

    ``damage`` sees every frame that the board sends, with its number, and returns the bytes that arrive.
    """

    def __init__(self, network: FrozenNetwork, damage: Callable[[int, bytes], bytes] = lambda number, line: line):
        self.sidecar = sidecar(network)
        self.output = output_word(network)
        self.input_bytes = input_word(network).stream_width // 8
        self.damage = damage
        self.sent = 0
        self.words: list[int] = []
        self.samples: list[list[int]] = []
        self.chunks: list[int] = []
        self.resets = 0
        self.status = 0
        self.error: ErrorCode | None = None
        self.line = bytearray()
        self.answer = bytearray()

    def read(self, timeout: float) -> bytes:
        data, self.answer = bytes(self.answer[:7]), self.answer[7:]
        return data

    def write(self, data: bytes) -> None:
        self.line += data
        while DELIMITER in self.line:
            line, _, rest = bytes(self.line).partition(DELIMITER)
            self.line[:] = rest
            if line:
                self._take(decode_frame(line))

    def _reply(self, kind: Reply, tag: int, data: bytes = b"") -> None:
        self.answer += self.damage(self.sent, encode_frame(Frame(kind, tag, data)))
        self.sent += 1

    def _take(self, frame: Frame) -> None:
        if self.error is not None:
            self._reply(Reply.ERROR, frame.tag, bytes([self.error]))
            self.error = None
        elif frame.kind == Command.IDENTIFY:
            numbers = bytes([1, self.status, self.input_bytes, self.output.stream_width // 8])
            self._reply(Reply.IDENTITY, frame.tag, numbers + bytes.fromhex(HASH[:16]) + bytes([1, 2, 0, 0, 3, 0, 0, 0]))
        elif frame.kind == Command.RESET:
            self.resets += 1
            self.words = []
            self._reply(Reply.RESET_DONE, frame.tag)
        else:
            self.chunks.append(len(frame.data))
            size = self.input_bytes
            self.words += [int.from_bytes(frame.data[i : i + size], "little") for i in range(0, len(frame.data), size)]
            self._reply(Reply.ACCEPTED, frame.tag)
            if frame.kind == Command.LAST_CHUNK:
                self.samples.append(self.words)
                self.words = []
                self._answer_sample(frame.tag)

    def _answer_sample(self, tag: int) -> None:
        rows = [(SPIKE, 2, 1, 0), *((VALUE, 0, i, int(i == 1)) for i in range(4)), (DECISION, 0, 1, 0)]
        for number, row in enumerate(rows):
            word = int(self.output.pack(dict(zip(("kind", "timestep", "index", "value"), row, strict=True)))[0])
            data = bytes([number]) + word.to_bytes(self.output.stream_width // 8, "little")
            if number == len(rows) - 1:
                self._reply(Reply.LAST_OUTPUT, tag, data + bytes([self.status]))
            else:
                self._reply(Reply.OUTPUT, tag, data)


def stimulus(network: FrozenNetwork, per_step: int = 2) -> Stimulus:
    events = np.zeros((1, network.timesteps, network.n_inputs), bool)
    events[:, :, :per_step] = True
    return Stimulus.from_dense(events)


def client(board: PythonBoard) -> HostClient:
    return HostClient(board, board.sidecar, timeout=0.01, retries=2)


def test_sample_becomes_words_and_the_answer_arrays():
    network = event_network()
    board = PythonBoard(network)
    result = client(board).run(stimulus(network), 0)
    record = input_word(network)
    expected = [record.pack({"source": s, "kind": k})[0] for _ in range(3) for s, k in ((0, 0), (1, 0), (0, 1))]
    assert board.samples == [expected]
    assert (result.decision, result.attempts) == (1, 1)
    assert result.values.tolist() == [0, 1, 0, 0]
    assert np.argwhere(result.spikes).tolist() == [[2, 1]]


def test_current_sends_nonzero_values_and_a_silent_sample_one_word():
    network = FrozenNetwork.from_arrays(
        [np.ones((6, 4), int)], threshold=3, timesteps=3, coding=InputCoding("current", 4)
    )
    board = PythonBoard(network)
    values = np.array([[0, 5, 0, 0, 15, 0], [0] * 6], np.uint8)
    samples = Stimulus(6, 3, np.full(2, -1, np.int32), values=values)
    for sample in range(2):
        client(board).run(samples, sample)
    assert board.samples == [[1 | 5 << 3, 4 | 15 << 3], [0]]


def test_long_sample_is_cut_into_chunks_of_whole_words():
    network = event_network(n_inputs=300, timesteps=5)
    board = PythonBoard(network)
    client(board).run(stimulus(network, per_step=300), 0)
    assert len(board.samples[0]) == 5 * 301
    assert max(board.chunks) == CHUNK_BYTES and sum(board.chunks) == 2 * 5 * 301


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("kind", ["flip", "lose", "cut"])
def test_any_damaged_or_lost_reply_is_noticed_and_the_sample_sent_again(number, kind):
    def damage(current: int, line: bytes) -> bytes:
        if current != number:
            return line
        if kind == "flip":
            return line[:3] + bytes([line[3] ^ 0x41]) + line[4:]
        return b"" if kind == "lose" else line[:4]

    network = event_network()
    board = PythonBoard(network, damage)
    result = client(board).run(stimulus(network), 0)
    assert result.attempts == 2
    # A reply that was cut short swallows the answer to the first reset.
    assert board.resets == 1 + (kind == "cut" and number == 6)
    assert result.values.tolist() == [0, 1, 0, 0]
    assert np.argwhere(result.spikes).tolist() == [[2, 1]]


@pytest.mark.parametrize("code", list(ErrorCode))
def test_error_frame_is_followed_by_another_attempt(code):
    network = event_network()
    board = PythonBoard(network)
    board.error = code
    assert client(board).run(stimulus(network), 0).attempts == 2


def test_dead_board_gives_one_line_that_says_what_to_do():
    board = PythonBoard(event_network(), lambda number, line: b"")
    with pytest.raises(LinkError, match=r"no answer within 0\.01 s, 3 times; check the port, the baud rate"):
        client(board).identify()
    with pytest.raises(LinkError, match="no answer"):
        client(board).run(stimulus(event_network()), 0)


def test_noise_without_end_does_not_fill_memory():
    board = PythonBoard(event_network())
    board.answer += b"\xaa" * 5000
    assert client(board).identify().network_hash == HASH[:16]


def test_identity_is_checked_against_the_bundle():
    board = PythonBoard(event_network())
    identity = client(board).identify()
    assert (identity.saturation_count, identity.cycle_count, identity.busy) == (513, 3, False)
    board.sidecar["network_hash"] = "f" * 64
    with pytest.raises(InputError, match="the board holds network 0123456789abcdef, the bundle is ffffffffffffffff"):
        client(board).identify()


def test_ill_framed_sample_is_reported_by_name():
    board = PythonBoard(event_network())
    board.status = 0b0101
    with pytest.raises(LinkError, match="duplicate, early_tlast"):
        client(board).run(stimulus(event_network()), 0)


def test_fields_with_a_gap_are_refused():
    with pytest.raises(InputError, match="do not follow"):
        record_from({"fields": [{"name": "a", "offset": 1, "width": 2, "signed": False}]})


def test_missing_port_is_one_line():
    with pytest.raises(LinkError, match="cannot be opened at 1000000 baud"):
        SerialTransport("/dev/no-such-port")


def test_serial_transport_carries_bytes_both_ways():
    transport = SerialTransport("loop://")
    transport.write(b"spikes")
    assert transport.read(1.0) == b"spikes"
    assert transport.read(0.01) == b""
    transport.close()
