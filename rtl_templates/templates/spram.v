// Memory with a registered output and one port, for single-port RAM, which has no contents until a load writes it.
module @MODULE@ #(
  parameter WIDTH = 1,
  parameter DEPTH = 1,
  parameter ADDRESS_WIDTH = 1
) (
  input  wire                     clk,
  input  wire                     en,
  input  wire [ADDRESS_WIDTH-1:0] addr,
  output reg  [WIDTH-1:0]         data,
  input  wire                     write_en,
  input  wire [ADDRESS_WIDTH-1:0] write_addr,
  input  wire [WIDTH-1:0]         write_data
);
  (* ram_style = "huge" *)
  reg [WIDTH-1:0] words [0:DEPTH-1];
  wire [ADDRESS_WIDTH-1:0] place = write_en ? write_addr : addr;
  always @(posedge clk)
    if (write_en) words[place] <= write_data;
    else if (en) data <= words[place];
endmodule
