// Receives output words over AXI4-Stream, with random backpressure, and records each with its cycle.
//
// Record: cycle (64 bits), the accelerator's cycle count (32 bits), {tlast, busy} (32 bits), word (WORDS x 32 bits).
module stream_sink #(
    parameter int WIDTH = 8,
    parameter int WORDS = 1
) (
    input  wire             clk,
    input  wire             open,
    input  wire             close,
    input  wire             rst,
    input  wire [31:0]      segment,
    input  wire [31:0]      stall,       // probability of a stall clock, in 1/256
    input  wire [31:0]      seed,
    input  wire [63:0]      cycle,
    input  wire [WIDTH-1:0] tdata,
    input  wire             tvalid,
    input  wire             tlast,
    input  wire             busy,
    input  wire [31:0]      cycle_count,
    output reg              tready,
    output reg  [31:0]      beats,
    output reg  [31:0]      decisions,
    output reg  [31:0]      unstable     // clocks in which a stalled word changed or vanished
);
  integer file = 0;
  reg [31:0]      lfsr;
  reg             stalled;
  reg [WIDTH-1:0] held;
  reg             held_last;
  wire [32*WORDS-1:0] word = (32 * WORDS)'(tdata);

  initial begin
    tready = 0; beats = 0; decisions = 0; lfsr = 32'hBEEF; unstable = 0; stalled = 0; held = 0; held_last = 0;
  end

  always @(posedge clk) begin
    lfsr <= {lfsr[30:0], lfsr[31] ^ lfsr[21] ^ lfsr[1] ^ lfsr[0]};
    tready <= {24'd0, lfsr[15:8]} >= stall;
    if (open) begin
      file = $fopen($sformatf("segment%0d_output.bin", segment), "wb");
      beats <= 0;
      decisions <= 0;
      unstable <= 0;
      stalled <= 0;
      lfsr <= {seed[30:0], 1'b1} ^ 32'h5A5A_0000;
    end else if (close) begin
      $fclose(file);
    end else if (rst) begin
      stalled <= 0;
    end else begin
      if (stalled && (!tvalid || tdata != held || tlast != held_last)) unstable <= unstable + 1;
      stalled <= tvalid && !tready;
      held <= tdata;
      held_last <= tlast;
      if (tvalid && tready) begin
        $fwrite(file, "%u%u%u%u", cycle, cycle_count, {30'd0, tlast, busy}, word);
        beats <= beats + 1;
        if (tlast) decisions <= decisions + 1;
      end
    end
  end
endmodule
