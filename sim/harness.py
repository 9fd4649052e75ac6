"""Generates the top of the testbench: one delivered accelerator, a stream source, a stream sink, a probe per layer.

The bus-functional modules in ``sim/tb`` are fixed; only what depends on the sidecar (widths, hierarchical
names of the probes) is generated here. The clock is a port, which ``tb/main.cpp`` drives.
"""

from __future__ import annotations

from pathlib import Path

from codesign.basics.errors import InputError
from codesign.contract.sidecar import Sidecar

TB_FOLDER = Path(__file__).parent / "tb"
TB_SOURCES = tuple(TB_FOLDER / name for name in ("stream_source.sv", "stream_sink.sv", "layer_probe.sv"))
LOAD_SOURCE = TB_FOLDER / "load_source.sv"
TB_MAIN = TB_FOLDER / "main.cpp"
TOP = "codesign_tb"
MAX_INPUT_WIDTH = 56
EXIT_COUNTERS = ("latency_cycles", "exit_count", "timestep_count")

_TEMPLATE = """\
`timescale 1ns/1ns
module {top} (input wire clk);
  // Written by cocotb, once per transaction.
  reg        reset           /*verilator public_flat_rw*/ = 1;
  reg        open            /*verilator public_flat_rw*/ = 0;
  reg        close           /*verilator public_flat_rw*/ = 0;
  reg        armed           /*verilator public_flat_rw*/ = 0;
  reg        isolate         /*verilator public_flat_rw*/ = 0;
  reg [31:0] segment         /*verilator public_flat_rw*/ = 0;
  reg [31:0] word_limit      /*verilator public_flat_rw*/ = 0;
  reg [31:0] gap             /*verilator public_flat_rw*/ = 0;
  reg [31:0] stall           /*verilator public_flat_rw*/ = 0;
  reg [31:0] seed            /*verilator public_flat_rw*/ = 1;
  reg [31:0] decision_target /*verilator public_flat_rw*/ = 0;
  reg [31:0] sample_count    /*verilator public_flat_rw*/ = 0;
  reg [31:0] word_target     /*verilator public_flat_rw*/ = 0;
  reg [63:0] quiet_limit     /*verilator public_flat_rw*/ = 1000;
  reg [31:0] beat_limit      /*verilator public_flat_rw*/ = 1000;
  // Read by cocotb.
  reg        stop            /*verilator public_flat_rw*/ = 0;
  reg        hung            /*verilator public_flat_rw*/ = 0;
  wire [31:0] decisions      /*verilator public_flat_rd*/;
  wire [31:0] words_sent     /*verilator public_flat_rd*/;

  // A register: what cocotb may write any time, the simulator looks through at every edge, as far as it reaches.
  reg         rst = 1;
  reg  [63:0] cycle = 0;
  reg  [63:0] quiet = 0;
  reg         counting = 0, open_before = 0, close_before = 0;
  wire        opening = open && !open_before, closing = close && !close_before;
  wire [{beat_width_1}:0] s_tdata;
  wire [{beat_width_1}/8:0] s_tkeep;
  wire        s_tvalid, s_tlast, s_tready;
  wire [{output_width_1}:0] m_tdata;
  wire        m_tvalid, m_tlast, m_tready;
  wire [31:0] beats, unstable;
  wire        busy            /*verilator public_flat_rd*/;
  wire [{error_width_1}:0] protocol_error;
  wire [31:0] saturation_count, cycle_count;
  wire [63:0] network_hash;
{exit_wires}  reg  [63:0] busy_clocks = 0, idle_decisions = 0;
  integer     status_file = 0;
{load_source}
  stream_source #(.WIDTH({word_stride}), .WORDS({input_words})) source (
    .clk(clk), .open(opening), .segment(segment), .word_limit(word_limit), .gap(gap), .seed(seed), .isolate(isolate),
    .decisions(decisions), .busy(busy), .cycle(cycle), .tdata(s_tdata), .tkeep(s_tkeep), .tvalid(s_tvalid),
    .tlast(s_tlast), .tready(s_tready), .close(closing), .words_sent(words_sent));

  stream_sink #(.WIDTH({output_width}), .WORDS({output_words})) sink (
    .clk(clk), .open(opening), .segment(segment), .stall(stall), .seed(seed), .cycle(cycle), .tdata(m_tdata),
    .tvalid(m_tvalid), .tlast(m_tlast), .tready(m_tready), .close(closing), .rst(rst), .busy(busy),
    .cycle_count(cycle_count), .beats(beats), .decisions(decisions), .unstable(unstable));

  {name} dut (
    .clk(clk), .rst(rst),
    .s_axis_tdata(s_tdata), {keep}.s_axis_tvalid(s_tvalid), .s_axis_tready(s_tready), .s_axis_tlast(s_tlast),
    .m_axis_tdata(m_tdata), .m_axis_tvalid(m_tvalid), .m_axis_tready(m_tready), .m_axis_tlast(m_tlast),
    .busy(busy), .protocol_error(protocol_error), .saturation_count(saturation_count),
    .cycle_count(cycle_count), .network_hash(network_hash){exit_ports}{load_ports});

{probes}
  always @(posedge clk) begin
    rst <= reset;
    cycle <= cycle + 1;
    open_before <= open;
    close_before <= close;
    hung <= quiet > quiet_limit || beats > beat_limit;
    stop <= armed && (decisions >= decision_target || words_sent >= word_target || quiet > quiet_limit
                      || beats > beat_limit);
    if (rst || !armed || (s_tvalid && s_tready) || (m_tvalid && m_tready)) quiet <= 0;
    else quiet <= quiet + 1;
    if (opening) begin
      counting <= 0;
      busy_clocks <= 0;
    end else begin
      if (s_tvalid && s_tready) counting <= 1;
      if (decisions >= sample_count) counting <= 0;
      if (busy) busy_clocks <= busy_clocks + 1;
    end
    if (closing) begin
      status_file = $fopen($sformatf("segment%0d_status.txt", segment), "wb");
      $fwrite(status_file, "cycle %0d\\nbeats %0d\\ndecisions %0d\\nunstable %0d\\nwords_sent %0d\\n",
              cycle, beats, decisions, unstable, words_sent);
      $fwrite(status_file, "busy %0d\\nbusy_clocks %0d\\nprotocol_error %0d\\nsaturation_count %0d\\n",
              busy, busy_clocks, protocol_error, saturation_count);
      $fwrite(status_file, "cycle_count %0d\\nnetwork_hash %0d\\n", cycle_count, network_hash);
{status}
      $fclose(status_file);
    end
  end
endmodule
"""

_PROBE = """\
  wire [3:0][63:0] clocks{index};
  layer_probe #(.LAYER({index}), .LANES({lanes}), .STATE_WIDTH({state_width}), .SPIKE_WORDS({spike_words}),
                .STATE_WORDS({state_words})) probe{index} (
    .clk(clk), .open(opening), .close(closing), .segment(segment), .counting(counting), .valid(dut.{valid}),
    .slot(32'(dut.{slot})), .spikes(dut.{spikes}), .states({{{states}}}), .phase(dut.{phase}),
    .clocks(clocks{index}));
"""

_STATUS = """\
      $fwrite(status_file, "clocks{index} %0d %0d %0d %0d\\n", clocks{index}[0], clocks{index}[1], clocks{index}[2],
              clocks{index}[3]);"""


_LOAD_SOURCE = """
  // Load images: written and read by cocotb.
  reg         load_start    /*verilator public_flat_rw*/ = 0;
  reg  [31:0] load_number   /*verilator public_flat_rw*/ = 0;
  reg  [31:0] load_limit    /*verilator public_flat_rw*/ = 0;
  reg  [31:0] load_gap      /*verilator public_flat_rw*/ = 0;
  reg  [63:0] expected_hash /*verilator public_flat_rw*/ = 0;
  wire [31:0] load_taken    /*verilator public_flat_rd*/;
  wire        load_done     /*verilator public_flat_rd*/;
  wire        loaded        /*verilator public_flat_rd*/;
  wire [{load_error_width_1}:0] load_error /*verilator public_flat_rd*/;
  wire [63:0] hash_now      /*verilator public_flat_rd*/;
  reg         load_before = 0;
  wire [7:0]  l_tdata;
  wire        l_tvalid, l_tlast, l_tready;
  assign hash_now = network_hash;
  always @(posedge clk) load_before <= load_start;

  load_source images (
    .clk(clk), .start(load_start && !load_before), .number(load_number), .limit(load_limit), .gap(load_gap),
    .tdata(l_tdata), .tvalid(l_tvalid), .tlast(l_tlast), .tready(l_tready), .taken(load_taken), .done(load_done));
"""

_LOAD_PORTS = """,
    .l_axis_tdata(l_tdata), .l_axis_tvalid(l_tvalid), .l_axis_tready(l_tready), .l_axis_tlast(l_tlast),
    .expected_hash(expected_hash), .loaded(loaded), .load_error(load_error)"""
_COUNTER = """\
      $fwrite(status_file, "{name} %0d\\n", {name});"""


def words(bits: int) -> int:
    """Number of 32-bit words that hold ``bits`` bits."""
    return -(-bits // 32)


def testbench_files(sidecar: Sidecar) -> tuple[Path, ...]:
    """Bus-functional modules that the testbench of this accelerator needs."""
    return (*TB_SOURCES, *((LOAD_SOURCE,) if sidecar.load else ()))


def testbench_source(sidecar: Sidecar) -> str:
    """SystemVerilog of the testbench's top for the accelerator that ``sidecar`` describes."""
    probes, status = [], []
    for layer in sidecar.layers:
        index, lanes, probe = layer.index, layer.lanes, layer.probe
        state_width = lanes * (layer.membrane_width + (layer.current_width or 0))
        probes.append(
            _PROBE.format(
                index=index,
                lanes=lanes,
                state_width=state_width,
                spike_words=words(lanes),
                state_words=words(state_width),
                states=", ".join(f"dut.{name}" for name in (probe.currents, probe.membranes) if name),
                **probe.model_dump(),
            )
        )
        status.append(_STATUS.format(index=index))
    input_width, output_width = sidecar.input_word.width, sidecar.output_word.width
    if input_width > MAX_INPUT_WIDTH:
        raise InputError(f"design.json: input words of {input_width} bits, the testbench sends up to {MAX_INPUT_WIDTH}")
    load = {"load_source": "", "load_ports": ""}
    if sidecar.load:
        load["load_source"] = _LOAD_SOURCE.format(load_error_width_1=len(sidecar.load.errors) - 1)
        load["load_ports"] = _LOAD_PORTS
    counters = EXIT_COUNTERS if sidecar.exits_early else ()
    status += [_COUNTER.format(name=name) for name in counters]
    stride, beat = -(-input_width // 8) * 8, sidecar.input_words
    return _TEMPLATE.format(
        top=TOP,
        name=sidecar.name,
        word_stride=stride,
        input_words=beat,
        beat_width_1=beat * stride - 1,
        keep=".s_axis_tkeep(s_tkeep), " if beat > 1 else "",
        exit_wires="".join(f"  wire [31:0] {name};\n" for name in counters),
        exit_ports="".join(f", .{name}({name})" for name in counters),
        output_width=output_width,
        output_width_1=output_width - 1,
        output_words=words(output_width),
        error_width_1=len(sidecar.protocol_errors) - 1,
        probes="\n".join(probes),
        status="\n".join(status),
        **load,
    )
