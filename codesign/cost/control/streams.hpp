// Parts that events and words of sweeps pass on their way.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "part.hpp"

namespace clocks {

// memories.StreamFifo
struct Fifo : Part {
    std::vector<Item> ring;
    int64_t depth, level = 0, head = 0;
    bool valid = false;
    Item held;

    explicit Fifo(Description &given) : Part(given), depth(given.next()) { ring.resize(static_cast<size_t>(depth)); }

    void offer() override {
        out().valid = valid;
        out().item = held;
        in().ready = level < depth;
    }

    void clock() override {
        const bool push = in().moves(), pull = level > 0 && (!valid || out().ready);
        const Item taken = ring[static_cast<size_t>(head)];
        if (push) ring[static_cast<size_t>((head + level) % depth)] = in().item;
        if (pull) {
            held = taken;
            valid = true;
            head = (head + 1) % depth;
        } else if (out().ready) {
            valid = false;
        }
        level += push - pull;
    }
};

// streams.StreamBuffer
struct Buffer : Part {
    Item held, spare;
    bool valid = false, has_spare = false;

    explicit Buffer(Description &given) : Part(given) {}

    void offer() override {
        out().valid = valid;
        out().item = held;
        in().ready = !has_spare;
    }

    void clock() override {
        if (!valid || out().ready) {
            valid = has_spare || in().valid;
            held = has_spare ? spare : in().item;
            has_spare = false;
        } else if (in().valid && !has_spare) {
            spare = in().item;
            has_spare = true;
        }
    }
};

// streams.StreamFork
struct Fork : Part {
    bool withdraws;
    std::vector<bool> has;

    explicit Fork(Description &given) : Part(given), withdraws(given.flag()) { has.resize(outputs.size()); }

    void offer() override {
        for (size_t number = 0; number < outputs.size(); number++) {
            out(number).valid = in().valid && !has[number];
            out(number).item = in().item;
        }
    }

    void answer() override {
        in().ready = true;
        for (size_t number = 0; number < outputs.size(); number++)
            in().ready = in().ready && (has[number] || out(number).ready);
    }

    void clock() override {
        for (size_t number = 0; number < outputs.size(); number++) {
            if (in().valid)
                has[number] = !in().ready && (has[number] || out(number).ready);
            else if (withdraws)
                has[number] = false;
        }
    }
};

// A population that nobody listens to.
struct Sink : Part {
    explicit Sink(Description &given) : Part(given) {}

    void answer() override { in().ready = true; }
};

// collector.EventCollector
struct Collector : Part {
    int64_t depth, group, last, timestep = 0, cleared = 0, at = 0, fetched_at = 0;
    const int32_t *place, *source;
    std::vector<uint32_t> masks[2];
    bool clearing = true, full[2] = {false, false}, into = false, outof = false;
    bool valid_1 = false, valid_2 = false, bank_1 = false, bank_2 = false, fetched = false;
    bool fetches = false, moves = false, done = false;
    uint32_t left = 0;
    int64_t held_at = 0;

    Collector(Description &given, const int32_t *tables) : Part(given), depth(given.next()), group(given.next()) {
        last = given.next() - 1;
        place = tables + given.next();
        source = tables + given.next();
        for (auto &bank : masks) bank.resize(static_cast<size_t>(depth));
    }

    void offer() override {
        done = full[outof] && at == depth && !fetched && !left;
        out().valid = left || done;
        out().item = Item{};
        out().item.end = !left;
        if (left) out().item.source = source[held_at * group + __builtin_ctz(left)];
        in().ready = !clearing && !full[into];
    }

    void answer() override {
        const bool settled = !(valid_1 && bank_1 == outof) && !(valid_2 && bank_2 == outof);
        const uint32_t remains = left & (left - 1);
        moves = fetched && (!left || (out().ready && !remains));
        fetches = full[outof] && settled && at != depth && (!fetched || moves);
    }

    void clock() override {
        const bool taken = in().moves(), gives = taken && in().item.end && timestep == last;
        const bool closes = done && out().ready;
        if (moves) {
            auto &word = masks[outof][static_cast<size_t>(fetched_at)];
            left = word;
            held_at = fetched_at;
            word = 0;
        } else if (out().ready) {
            left &= left - 1;
        }
        if (fetches) {
            fetched_at = at++;
            fetched = true;
        } else if (moves) {
            fetched = false;
        }
        valid_2 = valid_1;
        bank_2 = bank_1;
        valid_1 = taken && !in().item.end;
        bank_1 = into;
        if (valid_1) {
            const int64_t address = place[in().item.source];
            masks[into][static_cast<size_t>(address / group)] |= 1u << (address % group);
        }
        if (taken && in().item.end) timestep = gives ? 0 : timestep + 1;
        if (closes) {
            at = 0;
            full[outof] = false;
            outof = !outof;
        }
        if (gives) {
            full[into] = true;
            into = !into;
        }
        if (clearing) {
            clearing = cleared != depth - 1;
            cleared++;
        }
    }
};

// picture.PictureReader
struct Reader : Part {
    const int32_t *reaches;
    bool valid = false;
    Item held;

    Reader(Description &given, const int32_t *tables) : Part(given), reaches(tables + given.next()) {}

    void offer() override {
        out().valid = valid;
        out().item = held;
    }

    void answer() override { in().ready = !valid || out().ready; }

    void clock() override {
        if (!in().ready) return;
        valid = in().valid && (in().item.end || reaches[in().item.source]);
        held = in().item;
    }
};

// streams.EventMerge; sources of a projection are counted behind those of the ones before.
struct Merge : Part {
    int64_t last, timestep = 0;
    std::vector<int64_t> base;
    std::vector<bool> delayed, ended;
    bool valid = false;
    Item held;
    int goes = -1;

    explicit Merge(Description &given) : Part(given), last(given.next() - 1) {
        for (size_t number = 0; number < inputs.size(); number++) {
            delayed.push_back(given.flag());
            base.push_back(given.next());
        }
        ended = delayed;
    }

    void offer() override {
        out().valid = valid;
        out().item = held;
    }

    void answer() override {
        const bool moves = !valid || out().ready;
        goes = -1;
        for (size_t number = 0; number < inputs.size(); number++) {
            Channel &sender = in(number);
            sender.ready = !ended[number] && sender.item.end;
            if (sender.valid && !ended[number] && !sender.item.end && moves) goes = static_cast<int>(number);
        }
        if (goes >= 0) in(static_cast<size_t>(goes)).ready = true;
    }

    void clock() override {
        const bool moves = !valid || out().ready;
        const bool all = std::all_of(ended.begin(), ended.end(), [](bool one) { return one; });
        if (moves) valid = false;
        for (size_t number = 0; number < inputs.size(); number++)
            if (in(number).valid && in(number).item.end) ended[number] = true;
        if (goes >= 0) {
            valid = true;
            held = in(static_cast<size_t>(goes)).item;
            held.source += static_cast<int32_t>(base[static_cast<size_t>(goes)]);
        }
        if (moves && all) {
            valid = true;
            held = Item{};
            held.end = true;
            std::fill(ended.begin(), ended.end(), false);
            timestep++;
            if (timestep > last) {
                timestep = 0;
                ended = delayed;
            }
        }
    }
};

// links.LinkIntake: sweep words from FIFOs in the order of the links.
struct Select : Part {
    std::vector<size_t> order;
    size_t at = 0;

    explicit Select(Description &given) : Part(given) {
        for (int64_t left = given.next(); left > 0; left--) order.push_back(static_cast<size_t>(given.next()));
    }

    void offer() override {
        out().valid = in(order[at]).valid;
        out().item = in(order[at]).item;
    }

    void answer() override {
        for (Channel *input : inputs) input->ready = false;
        in(order[at]).ready = out().ready;
    }

    void clock() override {
        if (out().moves() && out().item.end) at = at + 1 == order.size() ? 0 : at + 1;
    }
};

// serializer.SpikeSerializer; neurons of a slot are found by its layer.
struct Serializer : Part {
    int64_t lanes, streams, number;
    std::vector<const int32_t *> neurons, stream;
    bool valid = false, sent = false;
    Item word;

    Serializer(Description &given, const int32_t *tables)
        : Part(given), lanes(given.next()), streams(given.next()), number(given.next()) {
        for (int64_t left = given.next(); left > 0; left--) {
            neurons.push_back(tables + given.next());
            stream.push_back(tables + given.next());
        }
    }

    bool is_single() const { return lanes == 1 && streams == 1; }

    int32_t neuron(const Item &from, int lane) const {
        return neurons[static_cast<size_t>(from.layer)][from.source * lanes + lane];
    }

    uint32_t own(const Item &from) const {
        if (streams == 1) return from.mask;
        uint32_t found = 0;
        for (uint32_t left = from.mask; left; left &= left - 1) {
            const int lane = __builtin_ctz(left);
            if (stream[static_cast<size_t>(from.layer)][from.source * lanes + lane] == number) found |= 1u << lane;
        }
        return found;
    }

    void offer() override {
        const Item &from = is_single() ? in().item : word;
        const bool end = is_single() ? !from.mask || sent : !from.mask;
        out().valid = is_single() ? in().valid : valid;
        out().item = Item{};
        out().item.layer = from.layer;
        out().item.end = end;
        if (out().valid && !end) out().item.source = neuron(from, __builtin_ctz(from.mask));
    }

    bool more() { return in().item.mask && in().item.end && !sent; }

    void answer() override {
        if (is_single()) {
            in().ready = out().ready && !more();
            return;
        }
        const uint32_t rest = word.mask & (word.mask - 1);
        const bool last = word.mask ? !rest && !word.end : true;
        in().ready = !valid || (out().ready && last);
    }

    void clock() override {
        if (is_single()) {
            if (out().moves()) sent = more();
        } else if (in().ready) {
            word = in().item;
            word.mask = own(in().item);
            valid = in().valid && (word.mask || word.end);
        } else if (out().ready) {
            word.mask &= word.mask - 1;
        }
    }
};

}  // namespace clocks
