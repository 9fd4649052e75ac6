"""Host side of the UART link: sends samples to an accelerator and reads what it answers.

:class:`LinkProtocol` is the protocol without input or output: its methods are generators that yield
:class:`Exchange` (bytes to send, seconds to wait) and are resumed with the bytes that came. :func:`drive` runs them
over any :class:`Transport`, :func:`drive_async` over an awaitable one, such as a simulated UART; so that hardware and
simulation run the same code. :class:`HostClient` is the blocking API over a transport.

A sample is sent in chunks, one at a time. Whatever goes wrong (a damaged frame in either direction, a lost one, a
timeout), the accelerator is reset and the whole sample is sent again, a few times: samples are independent. Each
operation has a deadline in all, whatever the other side sends.
"""

from __future__ import annotations

import errno
import math
import operator
import os
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from boards.protocol import (
    CHUNK_BYTES,
    DELIMITER,
    ERROR_TEXT,
    IDENTITY_BYTES,
    PROTOCOL_VERSION,
    Command,
    ErrorCode,
    Frame,
    FrameError,
    Reply,
    decode_frame,
    encode_frame,
    word_bytes,
)
from codesign.basics.errors import InputError, ToolError
from codesign.contract.stimulus import Stimulus
from codesign.machine.layouts import Field, Record

if TYPE_CHECKING:
    from codesign.contract.sidecar import Sidecar, Word

DEFAULT_BAUD = 1_000_000
DEFAULT_TIMEOUT = 1.0
DEFAULT_RETRIES = 3
DEFAULT_DEADLINE = 30.0
MAX_LINE_BYTES = 512
DRAIN_SECONDS = 0.0005
OPEN_ERRORS = {
    errno.EAGAIN: "another program uses it",
    errno.ENOTTY: "it is no serial port",
    errno.EACCES: "no permission; on Linux, join the port's group, dialout or uucp",
}

T = TypeVar("T")


class LinkError(ToolError):
    """The board does not answer, or not sensibly."""


class _Fault(Exception):
    """Something that sending the sample again may cure."""


@dataclass(frozen=True)
class Exchange:
    """What a protocol wants done: send ``data``, then wait up to ``timeout`` seconds for any bytes."""

    data: bytes
    timeout: float


Session = Generator[Exchange, bytes, T]


class Transport(Protocol):
    """A byte stream to a board."""

    def write(self, data: bytes, timeout: float) -> None:
        """Send all of ``data``; LinkError if the line has not taken it within ``timeout`` seconds."""
        ...

    def read(self, timeout: float) -> bytes:
        """Bytes that have come, at least one; empty if none comes within ``timeout`` seconds."""
        ...


class AsyncTransport(Protocol):
    """As :class:`Transport`, awaitable; ``timeout`` may be simulated time."""

    def write(self, data: bytes, timeout: float) -> Awaitable[None]: ...

    def read(self, timeout: float) -> Awaitable[bytes]: ...


class _Watch:
    """The time that an operation has left, and what has gone over the line."""

    def __init__(self, deadline: float, clock: Callable[[], float]) -> None:
        self.deadline, self.clock = _positive("deadline", deadline), clock
        self.end = clock() + self.deadline
        self.sent = self.received = 0

    def left(self) -> float:
        """Seconds left. Raises LinkError if there are none."""
        left = self.end - self.clock()
        if left > 0:
            return left
        raise LinkError(
            f"no complete answer within {self.deadline:g} s ({self.sent} bytes went out, {self.received} came); check "
            "the port and the baud rate, or give more time (deadline=) for long samples on a slow line"
        )


def drive(
    session: Session[T],
    transport: Transport,
    *,
    deadline: float = DEFAULT_DEADLINE,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Run a session over a transport.

    deadline : seconds that the whole session may take, by ``clock``, whatever comes; then LinkError.
    """
    watch = _Watch(deadline, clock)
    try:
        exchange = next(session)
        while True:
            if exchange.data:
                transport.write(exchange.data, watch.left())
                watch.sent += len(exchange.data)
            received = transport.read(min(exchange.timeout, watch.left()))
            watch.received += len(received)
            exchange = session.send(received)
    except StopIteration as end:
        return end.value


async def drive_async(
    session: Session[T],
    transport: AsyncTransport,
    *,
    deadline: float = DEFAULT_DEADLINE,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """As :func:`drive`, over an awaitable transport; ``clock`` may show simulated seconds."""
    watch = _Watch(deadline, clock)
    try:
        exchange = next(session)
        while True:
            if exchange.data:
                await transport.write(exchange.data, watch.left())
                watch.sent += len(exchange.data)
            received = await transport.read(min(exchange.timeout, watch.left()))
            watch.received += len(received)
            exchange = session.send(received)
    except StopIteration as end:
        return end.value


def _positive(name: str, value: float) -> float:
    """``value``, a finite number above 0. Raises InputError that names it otherwise."""
    try:
        if math.isfinite(value) and value > 0:
            return value
    except TypeError:
        pass
    raise InputError(f"{name} must be a number of seconds above 0, not {value!r}")


def _count(name: str, value: int, least: int) -> int:
    """``value``, a whole number from ``least``. Raises InputError that names it otherwise."""
    try:
        if operator.index(value) >= least:
            return operator.index(value)
    except TypeError:
        pass
    raise InputError(f"{name} must be a whole number from {least}, not {value!r}")


@dataclass(frozen=True)
class Identity:
    """What a board says of itself.

    network_hash : first 8 bytes of the network hash, as hex.
    input_bytes, output_bytes : bytes of a stream word.
    busy : a sample is inside.
    protocol_error : bits as in the sidecar's ``protocol_errors``.
    saturation_count, cycle_count : since the accelerator's last reset, modulo 2**32.
    """

    version: int
    network_hash: str
    input_bytes: int
    output_bytes: int
    busy: bool
    protocol_error: int
    saturation_count: int
    cycle_count: int


@dataclass(frozen=True, eq=False)
class SampleResult:
    """What the accelerator did with one sample.

    spikes : bool (timesteps, n_outputs), of the last layer; all False if they are not sent.
    values : int64 (n_outputs,), readout values.
    decision : class that the accelerator chose.
    attempts : times the sample was sent, 1 if nothing went wrong.
    """

    spikes: npt.NDArray[np.bool_]
    values: npt.NDArray[np.int64]
    decision: int
    attempts: int


@dataclass
class _Answer:
    """Replies to one sample, as they come."""

    tags: set[int] = field(default_factory=set)
    accepted: set[int] = field(default_factory=set)
    words: list[int] = field(default_factory=list)
    status: int | None = None


def record_from(word: Word) -> Record:
    """Record of a stream word from its description in the sidecar."""
    record = Record(tuple(Field(item.name, item.width, item.signed) for item in word.fields))
    if any(record.offset(item.name) != item.offset for item in word.fields):
        raise InputError("design.json: the fields of a stream word do not follow each other")
    return record


class LinkProtocol:
    """The protocol for one accelerator, without input or output.

    Parameters
    ----------
    sidecar : the bundle's ``design.json``.
    timeout : seconds without any byte after which a reply counts as lost.
    retries : times that a command or sample is sent again before LinkError.

    Raises InputError for a ``timeout`` or ``retries`` that is no such number.
    """

    def __init__(self, sidecar: Sidecar, *, timeout: float = DEFAULT_TIMEOUT, retries: int = DEFAULT_RETRIES) -> None:
        self.sidecar = sidecar
        self.timeout, self.retries = _positive("timeout", timeout), _count("retries", retries, 0)
        self._input, self._output = record_from(sidecar.input_word), record_from(sidecar.output_word)
        addresses = sidecar.input_addresses
        self._addresses = None if addresses is None else np.asarray(addresses, np.int64)
        self._input_bytes = word_bytes(sidecar.input_word.width)
        self._output_bytes = word_bytes(sidecar.output_word.width)
        # A spike per output and timestep, all values, the decision.
        self._max_words = (sidecar.timesteps + 1) * sidecar.n_outputs + 1
        self._tag = 0
        self._pending = bytearray()
        # Whoever used the board before may have left half a sample in it.
        self._is_clean = False

    def identify(self) -> Session[Identity]:
        """Ask the board who it is. Raises LinkError without an answer, InputError if it is another network."""
        frame = yield from self._command(Command.IDENTIFY, Reply.IDENTITY)
        if len(frame.data) != IDENTITY_BYTES or frame.data[0] != PROTOCOL_VERSION:
            raise LinkError(
                f"the board speaks link protocol {frame.data[:1].hex() or 'none'}, this host {PROTOCOL_VERSION:02x}; "
                "build its bitstream again"
            )
        data = frame.data
        identity = Identity(
            version=data[0],
            network_hash=data[4:12].hex(),
            input_bytes=data[2],
            output_bytes=data[3],
            busy=bool(data[1] & 0x10),
            protocol_error=data[1] & 0x0F,
            saturation_count=int.from_bytes(data[12:16], "little"),
            cycle_count=int.from_bytes(data[16:20], "little"),
        )
        if identity.network_hash != self.sidecar.network_hash[:16]:
            raise InputError(
                f"the board holds network {identity.network_hash}, the bundle is {self.sidecar.network_hash[:16]}; "
                "load the bundle's bitstream"
            )
        return identity

    def reset(self) -> Session[None]:
        """Reset the accelerator; what was under way is lost. Raises LinkError without an answer."""
        yield from self._command(Command.RESET, Reply.RESET_DONE)
        self._is_clean = True

    def run(self, words: list[int]) -> Session[SampleResult]:
        """Send one sample's input words and collect the answer; the accelerator is reset first unless it is known to be
        between samples.

        Raises LinkError if it fails ``retries`` times more, or if the accelerator finds the words ill-framed.
        """
        reason = ""
        for attempt in range(self.retries + 1):
            if not self._is_clean:
                yield from self.reset()
            self._is_clean = False
            try:
                answer = yield from self._attempt(words)
                result = self._result(answer, attempt + 1)
                self._is_clean = True
                return result
            except _Fault as fault:
                reason = str(fault)
        raise LinkError(f"a sample failed {self.retries + 1} times: {reason}; check the cable and the baud rate")

    def words(self, stimulus: Stimulus, sample: int) -> list[int]:
        """Input words of one sample, tlast on the last.

        Raises InputError if there is no such sample or the stimulus has another shape than the network.
        """
        kinds = self.sidecar.input_kinds
        if not 0 <= sample < len(stimulus):
            raise InputError(f"sample {sample} is not one of the stimulus' {len(stimulus)} (0 is the first)")
        for name in ("n_inputs", "timesteps"):
            given, wanted = getattr(stimulus, name), getattr(self.sidecar, name)
            if given != wanted:
                raise InputError(f"the stimulus has {name} {given}, the bundle {wanted}; encode it for this network")
        if stimulus.values is not None:
            values = stimulus.values[sample].astype(np.int64)
            sources = np.flatnonzero(values)
            sources = sources if sources.size else np.zeros(1, np.int64)
            return self._input.pack({"source": self._address(sources), "value": values[sources]}).tolist()
        words: list[int] = []
        for timestep in range(stimulus.timesteps):
            events = stimulus.events(sample, timestep)
            if events.size:
                words += self._input.pack(
                    {"source": self._address(events.astype(np.int64)), "kind": kinds.event}
                ).tolist()
            words += self._input.pack({"source": 0, "kind": kinds.end}).tolist()
        return words

    def _address(self, sources: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """What the field ``source`` holds for inputs of these indices."""
        return sources if self._addresses is None else self._addresses[sources]

    def _next_tag(self) -> int:
        self._tag = (self._tag + 1) % 256
        return self._tag

    def _command(self, command: Command, reply: Reply) -> Session[Frame]:
        """Send a command without data until its reply comes, passing over everything else."""
        is_echo = False
        for _ in range(self.retries + 1):
            tag = self._next_tag()
            # The delimiter in front ends whatever the line may have left in the link's decoder.
            data = DELIMITER + encode_frame(Frame(command, tag))
            while True:
                try:
                    frame = yield from self._frame(data)
                except _Fault:
                    data = b""
                    continue
                data = b""
                if frame is None:
                    break
                if (frame.kind, frame.tag) == (reply, tag):
                    return frame
                is_echo = is_echo or (frame.kind, frame.tag) == (command, tag)
        raise LinkError(
            f"no answer within {self.timeout:g} s, {self.retries + 1} times"
            f"{', only what was sent came back (an echo)' if is_echo else ''}; check the port, the baud rate and that "
            "the bitstream is loaded"
        )

    def _frame(self, data: bytes = b"") -> Session[Frame | None]:
        """Next frame; None after a silence of ``timeout``. Raises _Fault for bytes that are no frame."""
        while True:
            while DELIMITER in self._pending:
                line, _, rest = bytes(self._pending).partition(DELIMITER)
                self._pending[:] = rest
                if line:
                    try:
                        return decode_frame(line)
                    except FrameError as error:
                        raise _Fault(f"a reply arrived damaged ({error})") from None
            if len(self._pending) > MAX_LINE_BYTES:
                self._pending.clear()
                raise _Fault(f"{MAX_LINE_BYTES} bytes came without a delimiter")
            received = yield Exchange(data, self.timeout)
            data = b""
            if not received:
                return None
            self._pending += received

    def _attempt(self, words: list[int]) -> Session[_Answer]:
        data = b"".join(word.to_bytes(self._input_bytes, "little") for word in words)
        size = CHUNK_BYTES // self._input_bytes * self._input_bytes
        answer = _Answer()
        for start in range(0, len(data), size):
            chunk = data[start : start + size]
            is_last = start + size >= len(data)
            tag = self._next_tag()
            answer.tags.add(tag)
            frame = yield from self._frame(
                encode_frame(Frame(Command.LAST_CHUNK if is_last else Command.CHUNK, tag, chunk))
            )
            while True:
                self._take(answer, frame)
                if tag in answer.accepted and (not is_last or answer.status is not None):
                    break
                frame = yield from self._frame()
        return answer

    def _take(self, answer: _Answer, frame: Frame | None) -> None:
        if frame is None:
            raise _Fault(f"no reply within {self.timeout:g} s")
        if frame.kind == Reply.ERROR and len(frame.data) == 1:
            known = frame.data[0] in set(ErrorCode)
            text = ERROR_TEXT[ErrorCode(frame.data[0])] if known else f"error {frame.data[0]}"
            raise _Fault(f"the link reports: {text}")
        if frame.tag not in answer.tags:
            raise _Fault(f"a reply to another command came (tag {frame.tag})")
        if frame.kind == Reply.ACCEPTED and not frame.data:
            if frame.tag in answer.accepted:
                raise _Fault("a chunk was accepted twice")
            answer.accepted.add(frame.tag)
            return
        is_last = frame.kind == Reply.LAST_OUTPUT
        if not (is_last or frame.kind == Reply.OUTPUT) or len(frame.data) != 1 + self._output_bytes + is_last:
            raise _Fault(f"a reply of unknown form came (kind {frame.kind:#x})")
        if frame.data[0] != len(answer.words) % 256:
            raise _Fault(f"output word {len(answer.words)} was lost")
        if len(answer.words) == self._max_words:
            raise _Fault(f"more than {self._max_words} output words came")
        answer.words.append(int.from_bytes(frame.data[1 : 1 + self._output_bytes], "little"))
        if is_last:
            answer.status = frame.data[-1]

    def _result(self, answer: _Answer, attempts: int) -> SampleResult:
        names = self.sidecar.protocol_errors
        errors = [name for bit, name in enumerate(names) if (answer.status or 0) >> bit & 1]
        if errors:
            raise LinkError(f"the accelerator found the sample ill-framed: {', '.join(errors)}; reset it")
        columns = self._output.unpack(np.array(answer.words, object if self._output.width > 63 else np.int64))
        kinds = self.sidecar.output_kinds
        kind, index = columns["kind"], columns["index"]
        spikes = np.zeros((self.sidecar.timesteps, self.sidecar.n_outputs), bool)
        values = np.zeros(self.sidecar.n_outputs, np.int64)
        is_spike, is_value = kind == kinds.spike, kind == kinds.value
        decisions = index[kind == kinds.decision]
        steps, classes = columns["timestep"][is_spike], index[is_spike]
        in_range = bool(np.all(steps < spikes.shape[0]) and np.all(classes < values.size))
        if decisions.size != 1 or not in_range or index[is_value].tolist() != list(range(values.size)):
            raise _Fault("the answer is not one decision, all values in order and spikes within range")
        spikes[steps, classes] = True
        values[index[is_value]] = columns["value"][is_value]
        return SampleResult(spikes, values, int(decisions[0]), attempts)


class HostClient:
    """Blocking client of an accelerator on a board.

    Parameters
    ----------
    transport : byte stream to the board, such as :class:`SerialTransport`.
    sidecar : the bundle's ``design.json``.
    timeout, retries : see :class:`LinkProtocol`.
    deadline : seconds that one call may take in all, retries included, whatever the other side sends.
    clock : seconds, ever growing; another one than the system's for tests.

    Every call raises LinkError at the deadline.
    """

    def __init__(
        self,
        transport: Transport,
        sidecar: Sidecar,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        deadline: float = DEFAULT_DEADLINE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.transport = transport
        self.protocol = LinkProtocol(sidecar, timeout=timeout, retries=retries)
        self.deadline, self.clock = _positive("deadline", deadline), clock

    def identify(self) -> Identity:
        """Who the board is. Raises LinkError without an answer, InputError if it holds another network."""
        return self._drive(self.protocol.identify())

    def reset(self) -> None:
        """Reset the accelerator. Raises LinkError without an answer."""
        self._drive(self.protocol.reset())

    def run(self, stimulus: Stimulus, sample: int) -> SampleResult:
        """Run one sample of ``stimulus``. Raises LinkError if it fails again and again."""
        return self._drive(self.protocol.run(self.protocol.words(stimulus, sample)))

    def _drive(self, session: Session[T]) -> T:
        return drive(session, self.transport, deadline=self.deadline, clock=self.clock)


class SerialTransport:
    """A serial port, which no other program may use at the same time.

    Parameters
    ----------
    port : device name, such as /dev/ttyUSB1 (iCEBreaker: the second of its two ports).
    baud : bits per second, as the bitstream was built for.

    Raises InputError for a rate that the port cannot have, LinkError if the port cannot be opened, is in use, is no
    serial port, or is unplugged.
    """

    def __init__(self, port: str, baud: int = DEFAULT_BAUD) -> None:
        import serial

        self._port, baud = port, _count("baud", baud, 1)
        self._errors: tuple[type[Exception], ...] = (serial.SerialException, OSError)
        if os.name == "posix":
            import termios

            self._errors += (termios.error,)
        try:
            self._serial = serial.serial_for_url(port, baudrate=baud, timeout=0, exclusive=True)
        except self._errors as error:
            reason = OPEN_ERRORS.get(_number(error), str(error))
            raise LinkError(f"{port}: cannot be opened at {baud} baud ({reason}); name another port") from None
        except (ValueError, OverflowError) as error:
            raise InputError(f"{port}: cannot be opened at {baud} baud ({error}); name another port or rate") from None

    def write(self, data: bytes, timeout: float) -> None:
        try:
            end = time.monotonic() + timeout
            self._serial.write_timeout = timeout
            self._serial.write(data)
            # Reading's timeout begins when the last byte has left; draining the port would wait for ever.
            while self._waiting() and time.monotonic() < end:
                time.sleep(DRAIN_SECONDS)
        except self._errors as error:
            raise LinkError(f"{self._port}: writing failed ({error}); check the cable and the port") from None

    def read(self, timeout: float) -> bytes:
        try:
            self._serial.timeout = timeout
            first = self._serial.read(1)
            return first + self._serial.read(self._serial.in_waiting) if first else b""
        except self._errors as error:
            raise LinkError(f"{self._port}: reading failed ({error}); check the cable and the port") from None

    def close(self) -> None:
        self._serial.close()

    def _waiting(self) -> int:
        """Bytes that have not left yet; 0 where the port, such as a network's, does not say."""
        return getattr(self._serial, "out_waiting", 0)


def _number(error: BaseException) -> int:
    """The system's number of an error of a serial port, which pyserial keeps as text in some; 0 if it has none."""
    if error.args and isinstance(error.args[0], int):
        return error.args[0]
    return errno.ENOTTY if os.strerror(errno.ENOTTY) in str(error) else 0
