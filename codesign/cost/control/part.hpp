// Channels, what passes them, and parts.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <vector>

namespace clocks {

// An event (source, end), a word of a sweep (slot in `source`, mask, end, layer), or input words (the first one's number
// in `source`, their number in `mask`, last).
struct Item {
    int32_t source = 0;
    int32_t layer = 0;
    uint32_t mask = 0;
    bool end = false;
    bool last = false;
};

struct Channel {
    Item item;
    bool valid = false;
    bool ready = false;

    bool moves() const { return valid && ready; }
};

// What comes in, and what the golden model says that happens.
struct Samples {
    int64_t count;
    int64_t timesteps;
    const int32_t *words;  // the source of each input word, -1 for an end
    const int64_t *begins;  // int64 (count + 1,): the first word of each sample
    const uint8_t *const *spikes;  // of each layer (count, timesteps, n_out)
    const int64_t *widths;  // n_out of each layer
    const int64_t *exits;  // the last timestep of each sample that counts
};

// What stands in the netlist of one part.
struct Description {
    std::vector<int64_t> numbers;
    std::vector<Channel *> inputs;
    std::vector<Channel *> outputs;
    size_t at = 0;

    int64_t next() { return numbers.at(at++); }
    bool flag() { return next() != 0; }
};

struct Part {
    int64_t group = -1;
    std::vector<Channel *> inputs;
    std::vector<Channel *> outputs;

    explicit Part(const Description &given) : inputs(given.inputs), outputs(given.outputs) {}
    virtual ~Part() = default;
    virtual void offer() {}
    virtual void answer() {}
    virtual void clock() {}

    Channel &in(size_t number = 0) { return *inputs[number]; }
    Channel &out(size_t number = 0) { return *outputs[number]; }
};

}  // namespace clocks
