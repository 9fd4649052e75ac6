// Sends a load image, a file of bytes, over AXI4-Stream; tlast goes with the last byte.
module load_source (
    input  wire        clk,
    input  wire        start,      // pulse: send the file of this number from its begin
    input  wire [31:0] number,
    input  wire [31:0] limit,      // bytes that may be offered
    input  wire [31:0] gap,        // probability of a clock without a new byte, in 1/256
    output reg  [7:0]  tdata,
    output reg         tvalid,
    output reg         tlast,
    input  wire        tready,
    output reg  [31:0] taken,      // bytes accepted
    output reg         done        // the whole file is accepted
);
  integer file = 0, got = 0;
  reg [7:0]  ahead;
  reg        has_ahead;
  reg [31:0] offered, lfsr;

  initial begin
    tdata = 0; tvalid = 0; tlast = 0; taken = 0; done = 0; has_ahead = 0; offered = 0; lfsr = 32'hC0DE; ahead = 0;
  end

  always @(posedge clk) begin
    lfsr <= {lfsr[30:0], lfsr[31] ^ lfsr[21] ^ lfsr[1] ^ lfsr[0]};
    if (start) begin
      file = $fopen($sformatf("load%0d.bin", number), "rb");
      got = $fread(ahead, file);
      has_ahead = got == 1;
      tvalid <= 0;
      taken <= 0;
      done <= 0;
      offered = 0;
    end else begin
      if (tvalid && tready) begin
        taken <= taken + 1;
        if (tlast) begin
          done <= 1;
          $fclose(file);
        end
      end
      if (!tvalid || tready) begin
        if (has_ahead && offered < limit && {24'd0, lfsr[7:0]} >= gap) begin
          tvalid <= 1;
          tdata <= ahead;
          offered = offered + 1;
          got = $fread(ahead, file);
          has_ahead = got == 1;
          tlast <= !has_ahead;
        end else begin
          tvalid <= 0;
        end
      end
    end
  end
endmodule
