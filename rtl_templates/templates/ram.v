// Memory with a registered output, filled from an image, that a load can write. It does one or the other in a clock.
module @MODULE@ #(
  parameter WIDTH = 1,
  parameter DEPTH = 1,
  parameter ADDRESS_WIDTH = 1,
  parameter BUNDLE_DIR = "",
  parameter FILE = ""
) (
  input  wire                     clk,
  input  wire                     en,
  input  wire [ADDRESS_WIDTH-1:0] addr,
  output reg  [WIDTH-1:0]         data,
  input  wire                     write_en,
  input  wire [ADDRESS_WIDTH-1:0] write_addr,
  input  wire [WIDTH-1:0]         write_data
);
  @STYLE@reg [WIDTH-1:0] words [0:DEPTH-1];
  generate
    if (FILE != "" && BUNDLE_DIR != "") begin : elsewhere initial $readmemh({BUNDLE_DIR, "/", FILE}, words); end else
    if (FILE != "") begin : image
      initial $readmemh(FILE, words);
    end
  endgenerate
  always @(posedge clk)
    if (write_en) words[write_addr] <= write_data;
    else if (en) data <= words[addr];
endmodule
