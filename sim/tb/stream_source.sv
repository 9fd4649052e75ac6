// Sends the words of a file over AXI4-Stream, WORDS of them a beat or fewer, with random gaps; with gaps, beats are cut
// short at random. Words of different samples never share a beat.
//
// The file holds 64-bit big-endian records {flags[7:0], word[55:0]}: flags bit 0 = tlast, bit 1 = first word of a
// sample. `word_limit` bounds how many words of the segment may be sent; `isolate` holds a sample's first word back
// until every earlier sample has ended with a decision and nothing of it is left inside.
module stream_source #(
    parameter int WIDTH = 8,   // of a word within a beat
    parameter int WORDS = 1
) (
    input  wire             clk,
    input  wire             open,        // strobe: open the files of `segment`
    input  wire             close,       // strobe: close the segment's files
    input  wire [31:0]      segment,
    input  wire [31:0]      word_limit,
    input  wire [31:0]      gap,         // probability of a gap clock, in 1/256
    input  wire [31:0]      seed,
    input  wire             isolate,
    input  wire [31:0]      decisions,
    input  wire             busy,
    input  wire [63:0]      cycle,
    output reg  [WORDS*WIDTH-1:0] tdata,
    output reg  [WORDS*WIDTH/8-1:0] tkeep,
    output reg              tvalid,
    output reg              tlast,
    input  wire             tready,
    output reg  [31:0]      words_sent
);
  integer words_file = 0, starts_file = 0, got = 0, place = 0;
  reg [63:0] ahead;      // the next record, read from the file but not yet sent
  reg        has_ahead;
  reg        first;
  reg [31:0] words_taken, samples, in_beat;
  reg        ended;
  reg [31:0] lfsr;

  initial begin
    tdata = 0; tkeep = 0; in_beat = 0; ended = 0; tvalid = 0; tlast = 0; words_sent = 0; has_ahead = 0; first = 0; words_taken = 0; samples = 0;
    lfsr = 32'hACE1;
    ahead = 0;
  end

  always @(posedge clk) begin
    lfsr <= {lfsr[30:0], lfsr[31] ^ lfsr[21] ^ lfsr[1] ^ lfsr[0]};
    if (open) begin
      words_file = $fopen($sformatf("segment%0d_words.bin", segment), "rb");
      starts_file = $fopen($sformatf("segment%0d_starts.bin", segment), "wb");
      got = $fread(ahead, words_file);
      has_ahead = got == 8;
      tvalid <= 0;
      words_sent <= 0;
      words_taken = 0;
      samples = 0;
      lfsr <= {seed[30:0], 1'b1};
    end else if (close) begin
      $fclose(words_file);
      $fclose(starts_file);
      tvalid <= 0;
      has_ahead = 0;
    end else begin
      if (tvalid && tready) begin
        words_sent <= words_sent + in_beat;
        if (first) $fwrite(starts_file, "%u", cycle);
      end
      if (!tvalid || tready) begin
        if (has_ahead && words_taken < word_limit && {24'd0, lfsr[7:0]} >= gap
            && !(isolate && ahead[57] && (decisions != samples || busy))) begin
          first <= ahead[57];
          tvalid <= 1;
          tdata <= 0;
          tkeep <= 0;
          ended = 0;
          in_beat <= 0;
          for (place = 0; place < WORDS; place = place + 1) begin
            if (place > 0 && (!has_ahead || words_taken >= word_limit || ahead[57] || (gap != 0 && lfsr[8 + place])))
              ended = 1;
            if (!ended) begin
              tdata[place*WIDTH +: WIDTH] <= ahead[WIDTH-1:0];
              tkeep[place*WIDTH/8 +: WIDTH/8] <= '1;
              tlast <= ahead[56];
              in_beat <= place + 1;
              words_taken = words_taken + 1;
              if (ahead[57]) samples = samples + 1;
              ended = ahead[56];
              got = $fread(ahead, words_file);
              has_ahead = got == 8;
            end
          end
        end else begin
          tvalid <= 0;
        end
      end
    end
  end
endmodule
