"""The client against a board made of Python, which answers, damages, loses and delays, and against what is no board."""

import contextlib
import os
import subprocess
import sys
import threading
import time
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
from codesign.basics.errors import InputError
from codesign.contract.network import FrozenNetwork, InputCoding
from codesign.contract.sidecar import InputKinds, LayerEntry, OutputKinds, Sidecar, Word
from codesign.contract.stimulus import Stimulus
from codesign.machine.layouts import DECISION, SPIKE, VALUE, input_word, output_word

HASH = "0123456789abcdef" + "0" * 48


def sidecar(network: FrozenNetwork, network_hash: str = HASH) -> Sidecar:
    """As much of a sidecar as the host reads."""
    words = {"input_word": input_word(network), "output_word": output_word(network)}
    return Sidecar.model_construct(
        network_hash=network_hash,
        coding=network.coding.kind,
        n_inputs=network.n_inputs,
        timesteps=network.timesteps,
        n_outputs=network.n_outputs,
        input_kinds=InputKinds(event=0, end=1),
        output_kinds=OutputKinds(spike=SPIKE, value=VALUE, decision=DECISION),
        protocol_errors=("duplicate", "index_out_of_range", "early_tlast", "missing_tlast"),
        layers=(LayerEntry.model_construct(projections=()),),
        **{
            name: Word.model_validate({"width": record.stream_width, "fields": record.describe()})
            for name, record in words.items()
        },
    )


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

    def write(self, data: bytes, timeout: float) -> None:
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
    host = HostClient(board, board.sidecar, timeout=0.01, retries=2)
    board.sent = 100  # the reply to this reset is not damaged
    host.reset()
    board.sent = board.resets = 0
    result = host.run(stimulus(network), 0)
    assert result.attempts == 2
    # A reply that was cut short swallows the answer to the first reset.
    assert board.resets == 1 + (kind == "cut" and number == 6)
    assert result.values.tolist() == [0, 1, 0, 0]
    assert np.argwhere(result.spikes).tolist() == [[2, 1]]


@pytest.mark.parametrize("code", list(ErrorCode))
def test_error_frame_is_followed_by_another_attempt(code):
    network = event_network()
    board = PythonBoard(network)
    host = client(board)
    host.reset()
    board.error = code
    assert host.run(stimulus(network), 0).attempts == 2


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
    board.sidecar = sidecar(event_network(), "f" * 64)
    with pytest.raises(InputError, match="the board holds network 0123456789abcdef, the bundle is ffffffffffffffff"):
        client(board).identify()


def test_ill_framed_sample_is_reported_by_name():
    board = PythonBoard(event_network())
    board.status = 0b0101
    with pytest.raises(LinkError, match="duplicate, early_tlast"):
        client(board).run(stimulus(event_network()), 0)


def test_fields_with_a_gap_are_refused():
    with pytest.raises(InputError, match="do not follow"):
        field = {"name": "a", "offset": 1, "width": 2, "signed": False}
        record_from(Word.model_validate({"width": 8, "fields": [field]}))


def test_half_a_sample_of_an_earlier_host_is_not_added_to():
    network = event_network(n_inputs=300, timesteps=5)
    board = PythonBoard(network)
    record = input_word(network)
    word = int(record.pack({"source": 7, "kind": 0})[0]).to_bytes(board.input_bytes, "little")
    board.write(encode_frame(Frame(Command.CHUNK, 1, word)), 1.0)
    client(board).run(stimulus(network), 0)
    assert len(board.samples[0]) == 5 * 3


def test_sample_after_one_that_failed_starts_from_a_reset():
    network = event_network()
    board = PythonBoard(network)
    host = HostClient(board, board.sidecar, timeout=0.01, retries=0)
    host.run(stimulus(network), 0)
    board.error = ErrorCode.BAD_CRC
    with pytest.raises(LinkError, match="a sample failed 1 times"):
        host.run(stimulus(network), 0)
    before = board.resets
    host.run(stimulus(network), 0)
    host.run(stimulus(network), 0)
    assert board.resets == before + 1


def test_stimulus_of_another_network_and_a_sample_that_is_not_there_are_refused():
    board = PythonBoard(event_network())
    with pytest.raises(InputError, match="n_inputs 7, the bundle 6"):
        client(board).run(stimulus(event_network(n_inputs=7)), 0)
    with pytest.raises(InputError, match="timesteps 4, the bundle 3"):
        client(board).run(stimulus(event_network(timesteps=4)), 0)
    for sample in (-1, 1):
        with pytest.raises(InputError, match=f"sample {sample} is not one of"):
            client(board).run(stimulus(event_network()), sample)


class Peer:
    """Transport to whatever sits at the other end of the line; ``time`` advances as it is waited for.

    ``says`` is asked for what arrives ``gap`` seconds after each wait began, and gets everything written so far.
    """

    def __init__(self, says: Callable[[bytes], bytes], gap: float):
        self.says, self.gap = says, gap
        self.written = b""
        self.time = 0.0

    def clock(self) -> float:
        return self.time

    def write(self, data: bytes, timeout: float) -> None:
        self.written += data

    def read(self, timeout: float) -> bytes:
        self.time += min(self.gap, timeout)
        return self.says(self.written) if self.gap <= timeout else b""


class Echo:
    def __init__(self):
        self.said = 0

    def __call__(self, written: bytes) -> bytes:
        data, self.said = written[self.said :], len(written)
        return data


def last_tag(written: bytes) -> int:
    """Tag of the last frame that was written."""
    return decode_frame(written.rstrip(DELIMITER).rpartition(DELIMITER)[2]).tag


def answering(reply: Reply, data: bytes = b"", late: int = 0) -> Callable[[bytes], bytes]:
    """A peer that says ``reply`` for ever, to the command that came last, or to one ``late`` commands before it."""
    return lambda written: encode_frame(Frame(reply, (last_tag(written) - late) % 256, data))


def accepts_for_ever(written: bytes) -> bytes:
    """Does as it is told, but accepts a sample again and again."""
    frame = decode_frame(written.rstrip(DELIMITER).rpartition(DELIMITER)[2])
    replies = {Command.RESET: Reply.RESET_DONE, Command.IDENTIFY: Reply.IDENTITY}
    return encode_frame(Frame(replies.get(frame.kind, Reply.ACCEPTED), frame.tag))


class OutputsForEver:
    """Accepts a sample and answers it with words that are right one by one, without an end."""

    def __init__(self):
        self.words, self.tag = 0, None

    def __call__(self, written: bytes) -> bytes:
        frame = decode_frame(written.rstrip(DELIMITER).rpartition(DELIMITER)[2])
        if frame.kind in (Command.RESET, Command.IDENTIFY):
            return accepts_for_ever(written)
        if frame.tag != self.tag:
            self.words, self.tag = 0, frame.tag
            return accepts_for_ever(written)
        network = event_network()
        word = int(output_word(network).pack({"kind": SPIKE, "timestep": 0, "index": 1, "value": 0})[0])
        data = bytes([self.words % 256]) + word.to_bytes(output_word(network).stream_width // 8, "little")
        self.words += 1
        return encode_frame(Frame(Reply.OUTPUT, self.tag, data))


PEERS = {
    "silent": (lambda written: b"", 0.01),
    "talks for ever": (lambda written: b"\x55" * 4000, 0.02),
    "one byte in a while": (lambda written: b"\x55", 0.9),
    "a byte just before each timeout, with ends": (lambda written: b"\x01\x00", 0.9999),
    "echoes": (Echo(), 0.001),
    "echoes for ever": (lambda written: written, 0.01),
    "answers an old tag": (answering(Reply.RESET_DONE, late=1), 0.01),
    "answers another command": (answering(Reply.OUTPUT), 0.01),
    "empty frames": (lambda written: DELIMITER * 64, 0.02),
    "errors for ever": (answering(Reply.ERROR, b"\x02"), 0.01),
    "a kind that is not there": (lambda written: encode_frame(Frame(0x42, last_tag(written))), 0.01),
    "accepts for ever": (accepts_for_ever, 0.01),
    "outputs for ever": (OutputsForEver(), 0.0001),
}


# These two answer a reset as a board would.
RESETS = ("accepts for ever", "outputs for ever")
ENDLESS = [(n, o) for n in PEERS for o in ("identify", "reset", "run") if o != "reset" or n not in RESETS]


@pytest.mark.parametrize(("name", "operation"), ENDLESS)
def test_whatever_the_other_side_sends_an_operation_ends_in_one_line_before_its_deadline(name, operation):
    says, gap = PEERS[name]
    peer, network = Peer(says, gap), event_network()
    host = HostClient(peer, sidecar(network), deadline=20, clock=peer.clock)
    call = {"identify": host.identify, "reset": host.reset, "run": lambda: host.run(stimulus(network), 0)}
    with pytest.raises(LinkError) as caught:
        call[operation]()
    assert peer.time <= 20
    assert "\n" not in str(caught.value)


def test_deadline_says_what_went_over_the_line_and_what_to_do():
    peer = Peer(lambda written: b"\x55", 0.5)
    with pytest.raises(
        LinkError, match=r"no complete answer within 3 s \(\d+ bytes went out, 6 came\); check the port"
    ):
        HostClient(peer, sidecar(event_network()), deadline=3, clock=peer.clock).identify()
    with pytest.raises(LinkError, match="only what was sent came back"):
        HostClient(peer := Peer(Echo(), 0.5), sidecar(event_network()), clock=peer.clock).identify()


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), None, "1"])
@pytest.mark.parametrize("name", ["timeout", "deadline"])
def test_times_that_are_none_are_refused(name, value):
    board = PythonBoard(event_network())
    with pytest.raises(InputError, match=f"{name} must be a number of seconds above 0"):
        HostClient(board, board.sidecar, **{name: value})


def test_retries_and_rates_that_are_none_are_refused():
    board = PythonBoard(event_network())
    for value in (-1, 1.5, "3"):
        with pytest.raises(InputError, match="retries must be a whole number from 0"):
            HostClient(board, board.sidecar, retries=value)
    assert HostClient(board, board.sidecar, retries=np.int64(2)).identify()
    for value in (0, -9600, 9600.5, "fast"):
        with pytest.raises(InputError, match="baud must be a whole number from 1"):
            SerialTransport("loop://", value)


@pytest.fixture
def terminal():
    """A pseudo terminal: the far end's descriptor, and the name of the port."""
    far, near = os.openpty()
    try:
        yield far, os.ttyname(near)
    finally:
        for descriptor in (far, near):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def test_port_that_talks_for_ever_ends_at_the_deadline(terminal):
    far, port = terminal
    stop = threading.Event()
    transport = SerialTransport(port, 115200)
    os.set_blocking(far, False)

    def talk():
        while not stop.is_set():
            try:
                os.write(far, b"\x55\x00" * 500)
            except BlockingIOError:
                time.sleep(0.001)

    thread = threading.Thread(target=talk)
    thread.start()
    begin = time.monotonic()
    try:
        with pytest.raises(LinkError, match=r"no complete answer within 0\.3 s"):
            HostClient(transport, sidecar(event_network()), deadline=0.3).identify()
    finally:
        stop.set()
        thread.join()
        transport.close()
    assert time.monotonic() - begin < 5


def test_port_that_takes_nothing_ends_at_the_deadline(terminal):
    transport = SerialTransport(terminal[1], 115200)
    begin = time.monotonic()
    with pytest.raises(LinkError, match="writing failed"):
        transport.write(bytes(10_000_000), 0.2)
    assert time.monotonic() - begin < 5
    transport.close()


def test_port_that_vanishes_is_one_line(terminal):
    far, port = terminal
    transport = SerialTransport(port, 115200)
    host = HostClient(transport, sidecar(event_network()), deadline=5)
    os.close(far)
    with pytest.raises(LinkError, match=f"{port}: (reading|writing) failed .*; check the cable") as caught:
        host.identify()
    assert "\n" not in str(caught.value)
    with pytest.raises(LinkError, match=f"{port}: (reading|writing) failed"):
        host.reset()
    transport.close()


def test_port_in_use_is_one_line(terminal):
    transport = SerialTransport(terminal[1], 115200)
    with pytest.raises(LinkError, match="another program uses it"):
        SerialTransport(terminal[1], 115200)
    transport.close()
    SerialTransport(terminal[1], 115200).close()


def test_file_folder_and_pipe_are_no_serial_ports(tmp_path):
    (tmp_path / "file").write_bytes(b"text")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "pipe"):
        with pytest.raises(LinkError, match="it is no serial port"):
            SerialTransport(str(tmp_path / name))
    with pytest.raises(LinkError, match="cannot be opened"):
        SerialTransport(str(tmp_path))


def test_kind_of_port_that_is_not_known_is_refused():
    with pytest.raises(InputError, match="cannot be opened"):
        SerialTransport("telepathy://board")


def test_missing_port_is_one_line():
    with pytest.raises(LinkError, match="cannot be opened at 1000000 baud"):
        SerialTransport("/dev/no-such-port")


def test_serial_transport_carries_bytes_both_ways():
    transport = SerialTransport("loop://")
    transport.write(b"spikes", 1.0)
    assert transport.read(1.0) == b"spikes"
    assert transport.read(0.01) == b""
    transport.close()


def test_client_imports_neither_training_nor_hardware_nor_simulation():
    program = (
        "import sys\nimport boards.host\n"
        "heavy = {'torch', 'amaranth', 'cocotb', 'scipy', 'sklearn', 'pydantic', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
