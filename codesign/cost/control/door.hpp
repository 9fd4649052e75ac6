// The host, and what its words pass.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "part.hpp"

namespace clocks {

// sim/tb/stream_source.sv: whole beats without gaps; alone, a sample waits until nothing is left of the one before.
struct Host : Part {
    const Samples &samples;
    int64_t words, sample = 0, place = 0, started = 0;
    bool alone, valid = false, first = false;
    Item held;
    int64_t *starts;

    Host(Description &given, const Samples &samples, bool alone, int64_t *starts)
        : Part(given), samples(samples), words(given.next()), alone(alone), starts(starts) {
        // The first word waits when the reset ends.
        load(true);
    }

    void offer() override {
        out().valid = valid;
        out().item = held;
    }

    void follow(int64_t now, bool is_free) {
        if (out().moves() && first) starts[started - 1] = now;
        if (!valid || out().ready) load(is_free);
    }

    void load(bool is_free) {
        valid = sample < samples.count && (place > 0 || !alone || is_free);
        if (!valid) return;
        const int64_t begin = samples.begins[sample] + place, end = samples.begins[sample + 1];
        const int64_t count = std::min(words, end - begin);
        held = Item{};
        held.source = static_cast<int32_t>(begin);
        held.mask = static_cast<uint32_t>(count);
        held.last = begin + count == end;
        first = place == 0;
        started += first;
        place = held.last ? 0 : place + count;
        sample += held.last;
    }
};

// early_exit.ExitCounters, as far as it shuts the door: a FIFO of the clocks in which samples began.
struct Admission : Part {
    int64_t depth, level = 0;
    bool begins = true, waits = false, opens = true;

    explicit Admission(Description &given) : Part(given), depth(given.next()) {}

    void offer() override {
        opens = !begins || level < depth;
        out().valid = in().valid && opens;
        out().item = in().item;
    }

    void answer() override { in().ready = out().ready && opens; }

    void follow(bool decided) {
        const bool taken = in().moves(), push = taken && begins, pull = level > 0 && (!waits || decided);
        if (pull)
            waits = true;
        else if (decided)
            waits = false;
        level += push - pull;
        if (taken) begins = in().item.last;
    }
};

// beats.BeatSplitter
struct Splitter : Part {
    int32_t word = 0;
    uint32_t waiting = 0;
    bool last = false;

    explicit Splitter(Description &given) : Part(given) {}

    void offer() override {
        out().valid = waiting > 0;
        out().item = Item{};
        out().item.source = word;
        out().item.mask = 1;
        out().item.last = last && waiting == 1;
    }

    void answer() override { in().ready = waiting == 0 || (out().ready && waiting == 1); }

    void clock() override {
        if (in().ready) {
            waiting = in().valid ? in().item.mask : 0;
            word = in().item.source;
            last = in().item.last;
        } else if (out().ready && waiting) {
            waiting--;
            word++;
        }
    }
};

// What the top asks of a door.
struct Door : Part {
    bool can_drop, drop = false, finished = false, in_progress = false;

    explicit Door(Description &given) : Part(given), can_drop(given.flag()) {}
};

// guard.SeenSources, as far as it holds anything up.
struct SeenSources {
    int64_t depth, ages, age = 1, cleared = 0;
    bool clearing = true;

    void follow(bool ends) {
        const bool was = clearing;
        if (ends) {
            if (age == ages) clearing = true;
            age = age == ages ? 1 : age + 1;
        }
        if (was) {
            if (cleared == depth - 1) clearing = false;
            cleared = cleared == depth - 1 ? 0 : cleared + 1;
        }
    }
};

// The word that is looked up and the one before it, on whose answer it waits.
struct Lookahead {
    bool looking = false, valid = false;
    Item looked, held;

    void shift(bool moves, bool consume, const Channel &in) {
        if (moves) {
            valid = true;
            held = looked;
        } else if (consume) {
            valid = false;
        }
        if (in.moves()) {
            looking = true;
            looked = in.item;
        } else if (moves) {
            looking = false;
        }
    }
};

// guard.InputGuard, for samples that keep the rules.
struct Guard : Door, Lookahead {
    const Samples &samples;
    bool is_current;
    int64_t last_end, timestep = 0;
    SeenSources seen;
    bool settled = false, in_sample = false;
    bool passes = false, event_first = false, sends_event = false, sends_end = false, consume = false, moves = false;

    Guard(Description &given, const Samples &samples)
        : Door(given), samples(samples), is_current(given.flag()), last_end(given.next() - 1) {
        seen.depth = given.next();
        seen.ages = given.next();
    }

    void offer() override {
        const bool active = valid && !seen.clearing;
        const int32_t word = valid ? samples.words[held.source] : 0;
        passes = active && word >= 0 && !settled;
        sends_event = passes && !drop;
        event_first = can_drop ? passes : sends_event;
        sends_end = active && !event_first && (word < 0 || held.last);
        in_progress = active || in_sample || looking;
        out().valid = sends_event || sends_end;
        out().item = Item{};
        out().item.source = word;
        out().item.end = sends_end;
    }

    void answer() override {
        const bool at_last_end = timestep == last_end, free = out().ready;
        if (event_first)
            consume = (free || drop) && !held.last;
        else if (sends_end)
            consume = free && (at_last_end || !held.last);
        else
            consume = !seen.clearing;
        moves = looking && (!valid || consume);
        finished = sends_end && free && at_last_end;
        in().ready = !seen.clearing && (!looking || moves);
    }

    void clock() override {
        const bool free = out().ready, ends = sends_end && free;
        const bool marks = can_drop ? passes && (drop || free) : sends_event && free;
        const bool active = valid && !seen.clearing;
        if (finished)
            in_sample = false;
        else if (active)
            in_sample = true;
        shift(moves, consume, in());
        if (ends) timestep = timestep == last_end ? 0 : timestep + 1;
        settled = !consume && (settled || marks || ends);
        seen.follow(ends);
    }
};

// guard.TrustedInput
struct Trusted : Door {
    const Samples &samples;
    bool is_current, sent = false, inside = false, ends = false, last = false;

    Trusted(Description &given, const Samples &samples)
        : Door(given), samples(samples), is_current(given.flag()) {}

    void offer() override {
        const int32_t word = in().valid ? samples.words[in().item.source] : 0;
        last = in().item.last;
        ends = is_current ? sent : word < 0;
        in_progress = inside;
        out().valid = in().valid && (!drop || ends);
        out().item = Item{};
        out().item.source = word;
        out().item.end = ends;
    }

    void answer() override {
        in().ready = is_current ? out().ready && (sent || !last) : out().ready;
        if (drop && !ends) in().ready = true;
        finished = out().moves() && ends && last;
    }

    void clock() override {
        if (!out().moves()) return;
        if (is_current) sent = last && !sent;
        inside = !finished;
    }
};

// parallel_guard.ParallelGuard, without what checks and buffers each stream.
struct ParallelGuard : Door {
    const Samples &samples;
    const int32_t *stream;
    bool is_current, checks;
    int64_t last_end, timestep = 0;
    uint32_t waiting = 0, taken = 0, at_end = 0;
    int32_t word = 0;
    bool last = false, in_sample = false, sends_end = false, ends = false, closes = false;
    std::vector<bool> has_end;
    std::vector<uint32_t> mine;

    ParallelGuard(Description &given, const Samples &samples, const int32_t *tables)
        : Door(given), samples(samples), is_current(given.flag()), checks(given.flag()), last_end(given.next() - 1) {
        stream = tables + given.next();
        has_end.resize(outputs.size());
        mine.resize(outputs.size());
    }

    void offer() override {
        std::fill(mine.begin(), mine.end(), 0);
        at_end = 0;
        for (int k = 0; waiting >> k; k++) {
            if (!(waiting >> k & 1)) continue;
            const int32_t source = samples.words[word + k];
            if (source < 0) {
                if (!(waiting & ((1u << k) - 1))) at_end = 1u << k;
                break;
            }
            mine[static_cast<size_t>(stream[source])] |= 1u << k;
        }
        sends_end = at_end || (last && !waiting);
        in_progress = in_sample || waiting || last;
        for (size_t number = 0; number < outputs.size(); number++) {
            Channel &entry = out(number);
            entry.valid = sends_end ? !has_end[number] : mine[number] != 0;
            entry.item = Item{};
            entry.item.end = sends_end;
            if (mine[number]) entry.item.source = samples.words[word + __builtin_ctz(mine[number])];
        }
    }

    void answer() override {
        ends = sends_end;
        taken = 0;
        for (size_t number = 0; number < outputs.size(); number++) {
            ends = ends && (has_end[number] || out(number).ready);
            if (!sends_end && out(number).moves()) taken |= mine[number] & -mine[number];
        }
        const bool with_last = last && !(waiting & ~at_end);
        finished = ends && (checks ? timestep == last_end : with_last);
        closes = with_last && finished;
        if (ends) taken |= at_end;
        in().ready = !(waiting & ~taken) && (!last || closes);
    }

    void clock() override {
        if (sends_end)
            for (size_t number = 0; number < outputs.size(); number++)
                has_end[number] = !ends && (has_end[number] || out(number).ready);
        waiting &= ~taken;
        if (closes) last = false;
        if (in().ready) {
            waiting = in().valid ? (1u << in().item.mask) - 1 : 0;
            word = in().item.source;
            last = in().valid && in().item.last;
        }
        if (ends) timestep = timestep == last_end ? 0 : timestep + 1;
        if (finished)
            in_sample = false;
        else if (taken)
            in_sample = true;
    }
};

// parallel_guard.StreamCheck, for events that keep the rules.
struct StreamCheck : Part, Lookahead {
    bool moves = false, consume = false, ends = false;
    const Door *door = nullptr;
    SeenSources seen;

    explicit StreamCheck(Description &given) : Part(given) {
        seen.depth = given.next();
        seen.ages = given.next();
    }

    void offer() override {
        const bool active = valid && !seen.clearing;
        out().valid = active && (held.end || !door->drop);
        out().item = held;
    }

    void answer() override {
        consume = out().valid ? out().ready : !seen.clearing;
        ends = out().moves() && held.end;
        moves = looking && (!valid || consume);
        in().ready = !seen.clearing && (!looking || moves);
    }

    void clock() override {
        shift(moves, consume, in());
        seen.follow(ends);
    }
};

// parallel_guard.ParallelGuard without checks: events that are dropped.
struct Dropper : Part {
    const Door *door = nullptr;

    explicit Dropper(Description &given) : Part(given) {}

    bool drops() { return door->drop && !in().item.end; }

    void offer() override {
        out().valid = in().valid && !drops();
        out().item = in().item;
    }

    void answer() override { in().ready = out().ready || drops(); }
};

}  // namespace clocks
