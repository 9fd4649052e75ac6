// Plays a bundle's golden vectors; prints one line for each output word that differs, then PASS or FAIL.
`timescale 1ns / 1ps
module vectors_tb;
  localparam IN_WIDTH = `IN_WIDTH, OUT_WIDTH = `OUT_WIDTH, IN_WORDS = `IN_WORDS, OUT_WORDS = `OUT_WORDS;
  reg clk = 0, rst = 1;
  reg [IN_WIDTH:0] in_words [0:IN_WORDS-1];
  reg [OUT_WIDTH:0] out_words [0:OUT_WORDS-1];
  integer in_position = 0, out_position = 0, errors = 0, seed = 1, samples = 0;
  reg in_valid = 0, out_ready = 0, random = `RANDOM;
  wire in_ready, out_valid, out_last, busy;
  wire [OUT_WIDTH-1:0] out_data;
  wire [31:0] cycle_count;
  wire [3:0] protocol_error;
  always #5 clk = ~clk;
  initial begin
    $readmemh("vectors/input.mem", in_words);
    $readmemh("vectors/output.mem", out_words);
    repeat (4) @(posedge clk);
    #1 rst = 0;
  end
  `NAME dut (
`ifdef LOADABLE
    .l_axis_tdata(8'd0), .l_axis_tvalid(1'b0), .l_axis_tlast(1'b0), .expected_hash(64'd0),
`endif
    .clk(clk), .rst(rst), .s_axis_tdata(in_words[in_position][IN_WIDTH-1:0]), .s_axis_tvalid(in_valid),
    .s_axis_tready(in_ready), .s_axis_tlast(in_words[in_position][IN_WIDTH]), .m_axis_tdata(out_data),
    .m_axis_tvalid(out_valid), .m_axis_tready(out_ready), .m_axis_tlast(out_last), .busy(busy),
    .cycle_count(cycle_count), .protocol_error(protocol_error)
  );
  always @(posedge clk) if (!rst) begin
    if (out_valid && out_ready) begin
      if ({out_last, out_data} !== out_words[out_position]) begin
        errors = errors + 1;
        $display("word %0d: %h, expected %h", out_position, {out_last, out_data}, out_words[out_position]);
      end
      if (out_last) begin
        samples = samples + 1;
        $display("sample %0d at %0d", samples, cycle_count);
      end
      out_position = out_position + 1;
      if (out_position == OUT_WORDS) begin
        if (errors == 0 && protocol_error === 4'd0) $display("PASS"); else $display("FAIL");
        $finish;
      end
    end
    if (in_valid && in_ready) begin
      in_valid <= 0;
      in_position = in_position + 1;
    end
    if (in_position < IN_WORDS && (!in_valid || in_ready)) in_valid <= random ? $urandom(seed) % 4 != 0 : 1;
    out_ready <= random ? $urandom(seed) % 3 == 0 : 1;
  end
  initial begin
    #20000000 $display("FAIL: too long, %0d words", out_position);
    $finish;
  end
endmodule
