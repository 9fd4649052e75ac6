// Records what one layer's fire sweep stores, and counts the clocks of each phase.
//
// Record per sweep clock: slot (32 bits), spikes (SPIKE_WORDS x 32 bits), states (STATE_WORDS x 32 bits): the membranes,
// and above them the synaptic currents, if there are any.
module layer_probe #(
    parameter int LAYER = 0,
    parameter int LANES = 1,
    parameter int STATE_WIDTH = 16,
    parameter int SPIKE_WORDS = 1,
    parameter int STATE_WORDS = 1
) (
    input  wire                              clk,
    input  wire                              open,
    input  wire                              close,
    input  wire [31:0]                       segment,
    input  wire                              counting,
    input  wire                              valid,
    input  wire [31:0]                       slot,
    input  wire [LANES-1:0]                  spikes,
    input  wire [STATE_WIDTH-1:0]            states,
    input  wire [1:0]                        phase,
    output reg  [3:0][63:0]                  clocks
);
  integer file = 0;
  wire [32*SPIKE_WORDS-1:0] spike_words = (32 * SPIKE_WORDS)'(spikes);
  wire [32*STATE_WORDS-1:0] state_words = (32 * STATE_WORDS)'(states);

  initial clocks = 0;

  always @(posedge clk) begin
    if (open) begin
      file = $fopen($sformatf("segment%0d_layer%0d.bin", segment, LAYER), "wb");
      clocks <= 0;
    end else if (close) begin
      $fclose(file);
      file = 0;
    end else begin
      if (counting) clocks[phase] <= clocks[phase] + 1;
      if (valid && file != 0) $fwrite(file, "%u%u%u", slot, spike_words, state_words);
    end
  end
endmodule
