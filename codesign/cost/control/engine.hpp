// Lanes that walk rows, and sweeps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "part.hpp"
#include "streams.hpp"

namespace clocks {

// fetcher.SynapseFetcher: rows that are looked up, wait and are walked, without what they hold.
struct Fetcher {
    struct Row {
        bool valid = false, end = false, lands = true;
        int32_t count = 0;
    };
    Row looking, grouped, found;
    std::vector<Row> queue;
    int64_t head = 0, level = 0, reserved = 0, remaining = 0;
    bool freed = false, active = false, is_final = false, lands = true;
    bool reading = false, read_lands = true, decoding = false, decoded_lands = true, synapse = false;
    // Of this clock.
    const Row *entering = nullptr, *first = nullptr;
    bool discard = false, held = false, occupied = false, load = false, pop = false, moves_on = true, moves_up = true;
    bool moves_in = true, room = false, waiting = false, word = false;

    bool looks_up() const { return looking.valid || grouped.valid || found.valid; }
};

// engine.Engine: lanes, sweeps, departures, and what comes in where layers have turns.
struct Engine : Part {
    enum State { CLEAR, ACCUMULATE, SWEEP, WAIT, DRAIN };
    enum Way { PORT, COPY, TOKEN };
    struct Layer {
        int64_t slots, index;
        const int32_t *neurons;
        bool spiking;
        int64_t base;
    };
    struct Link {
        size_t layer;
        Way way;
        int64_t base;
        const int32_t *reaches;
        size_t copy;
    };
    struct Return {
        uint64_t senders;
        bool is_late;
    };
    struct Step {
        bool valid = false, initial = false, silent = false, is_end = false;
        int64_t slot = 0, sample = 0, timestep = 0;
        size_t layer = 0;
    };

    const Samples &samples;
    const int32_t *lengths, *landing;
    int64_t lanes, walkers, streams, depth, fire, write, settling, room_level, sources;
    bool is_short, is_grouped, is_decoded, is_shared, is_chain, holds, keeps_sums, last_only, counts;
    const Fifo *fifo = nullptr;
    int64_t fifo_part;
    std::vector<Layer> layers;
    std::vector<Link> links;
    std::vector<Return> returns;
    size_t copies = 0;

    static constexpr size_t LINE = 16;

    std::vector<Fetcher> fetchers;
    // The slots that sweeps have read, a ring that moves on in every clock.
    std::vector<Step> line;
    size_t newest = 0;
    std::vector<bool> had_room, waited, fed, done, held;
    std::vector<size_t> link;
    std::vector<Item> event;
    State state;
    size_t layer = 0;
    int64_t slot = 0, timestep = 0, sample = 0, ahead = 0;
    bool clearing = true;
    // Of the clock before: a word waits, as it was made.
    bool waits = false, was_silent = false;
    // Of this clock.
    bool silence = false, frozen = false, go = false, resume = false, room = false, sample_end = false;
    bool is_drained = false, ends_sample = false;
    std::vector<bool> has_room, accept, link_moves;
    std::vector<Item> given;
    std::vector<const Channel *> senders;

    Engine(Description &from, const Samples &samples, const int32_t *tables) : Part(from), samples(samples) {
        lanes = from.next();
        walkers = from.next();
        streams = from.next();
        depth = from.next();
        is_short = from.flag();
        is_grouped = from.flag();
        is_decoded = from.flag();
        fire = from.next();
        write = from.next();
        settling = from.next();
        keeps_sums = from.flag();
        last_only = from.flag();
        counts = from.flag();
        fifo_part = from.next();
        room_level = from.next();
        sources = from.next();
        lengths = tables + from.next();
        const int64_t taps = from.next();
        landing = taps < 0 ? nullptr : tables + taps;
        is_chain = from.flag();
        holds = from.flag();
        for (int64_t left = from.next(); left > 0; left--) {
            Layer one;
            one.slots = from.next();
            one.index = from.next();
            one.neurons = tables + from.next();
            one.spiking = from.flag();
            one.base = from.next();
            layers.push_back(one);
        }
        is_shared = layers.size() > 1;
        for (int64_t left = from.next(); left > 0; left--) {
            Link one;
            one.layer = static_cast<size_t>(from.next());
            one.way = static_cast<Way>(from.next());
            one.base = from.next();
            one.reaches = tables + from.next();
            one.copy = one.way == COPY ? copies++ : 0;
            links.push_back(one);
        }
        for (int64_t left = from.next(); left > 0; left--) {
            Return one;
            one.senders = static_cast<uint64_t>(from.next());
            one.is_late = from.flag();
            returns.push_back(one);
        }
        const auto count = static_cast<size_t>(streams);
        fetchers.resize(static_cast<size_t>(walkers) * count);
        for (Fetcher &fetcher : fetchers) fetcher.queue.resize(static_cast<size_t>(std::max<int64_t>(1, depth)));
        if (write >= static_cast<int64_t>(LINE)) throw std::runtime_error("a pipeline of too many clocks");
        line.resize(LINE);
        for (auto *flags : {&had_room, &waited, &fed, &done, &held, &has_room, &accept, &link_moves}) flags->resize(count);
        link.resize(count);
        event.resize(count);
        given.resize(count);
        senders.resize(count);
        state = is_shared ? SWEEP : CLEAR;
    }

    Fetcher &fetcher(int64_t walker, size_t stream) {
        return fetchers[static_cast<size_t>(walker * streams) + stream];
    }

    // The slot that was read so many clocks ago.
    const Step &at(int64_t clocks) const { return line[(newest + static_cast<size_t>(clocks)) % LINE]; }

    bool passing(int64_t from, int64_t to) const {
        for (int64_t k = from; k < to; k++)
            if (at(k).valid) return true;
        return false;
    }

    bool is_last_timestep() const { return timestep == samples.timesteps - 1; }
    bool is_last() const { return layer + 1 == layers.size(); }
    const Link &link_of(size_t stream) const { return links[link[stream]]; }

    void offer() override {
        sweep();
        depart();
        look();
        control();
    }

    // sweeps.SweepControl: the slot that is read in this clock.
    void sweep() {
        Step &now = line[newest];
        const bool clears = is_shared ? clearing : state == CLEAR;
        now.valid = state == SWEEP || state == CLEAR;
        now.silent = clears;
        now.initial = clears || is_last_timestep();
        now.slot = slot;
        now.layer = layer;
        now.is_end = slot == layers[layer].slots - 1;
        now.sample = sample;
        now.timestep = timestep;
    }

    uint32_t mask(const Step &step, bool spiking) const {
        const Layer &own = layers[step.layer];
        const int32_t *neurons = own.neurons + step.slot * lanes;
        uint32_t found = 0;
        const uint8_t *spikes =
            samples.spikes[own.index] + (step.sample * samples.timesteps + step.timestep) * samples.widths[own.index];
        for (int64_t lane = 0; lane < lanes; lane++)
            if (neurons[lane] >= 0 && (!spiking || spikes[neurons[lane]])) found |= 1u << lane;
        return found;
    }

    // departures.Departures
    void depart() {
        const Step &step = at(fire);
        const bool shown = step.valid && !step.silent;
        const bool of_last = step.layer + 1 == layers.size();
        const bool is_read = step.valid && (!step.silent || is_shared);
        const uint32_t spikes = shown && layers[step.layer].spiking ? mask(step, true) : 0;
        uint32_t leaving = spikes;
        if (shown && of_last && (counts || !layers.back().spiking))
            leaving = last_only && !step.initial ? 0 : mask(step, false);
        uint32_t returning = is_shared || counts ? spikes : leaving;
        if (silence) leaving = 0;
        if (silence) returning = 0;
        Item word;
        word.source = static_cast<int32_t>(step.slot);
        word.layer = static_cast<int32_t>(step.layer);
        word.end = step.is_end;
        word.mask = leaving;
        out().item = word;
        out().item.layer = 0;
        out().valid = shown && of_last && (leaving || step.is_end);
        ends_sample = shown && of_last && step.is_end && step.initial;
        for (size_t number = 0; number < returns.size(); number++) {
            const Return &back = returns[number];
            Channel &to = out(1 + number);
            word.mask = returning;
            bool sends = shown;
            if (is_shared && back.is_late) {
                sends = is_read;
                if (step.initial) word.mask = 0;
            } else if (!is_shared) {
                sends = shown && !step.initial;
            }
            to.item = word;
            to.valid = sends && (back.senders >> step.layer & 1) && (word.mask || step.is_end);
        }
    }

    // fetcher.SynapseFetcher, what follows from its registers alone.
    void look() {
        for (Fetcher &one : fetchers) {
            const Fetcher::Row &entering = !is_short ? one.found : is_grouped ? one.grouped : one.looking;
            one.entering = &entering;
            one.discard = entering.valid && !entering.end && entering.count == 0;
            one.held = entering.valid && !one.discard;
            if (depth) {
                one.first = &one.queue[static_cast<size_t>(one.head)];
                one.occupied = one.level > 0;
                one.room = streams == 1 ? one.reserved != depth : one.reserved < depth - 1;
            } else {
                one.first = &entering;
                one.occupied = one.held;
            }
            one.word = is_decoded ? one.decoding && one.decoded_lands : one.reading;
            const bool given_now = is_short ? one.word : one.synapse;
            const bool walking = one.active || one.reading || one.decoding || given_now;
            one.waiting = one.occupied && one.first->end && !walking;
        }
    }

    // sweeps.SweepControl: whether rows may be walked, and whether the sweep begins.
    void control() {
        bool at_barrier = true;
        if (streams == 1)
            for (const Fetcher &one : fetchers) at_barrier = at_barrier && one.waiting;
        else
            at_barrier = std::all_of(waited.begin(), waited.end(), [](bool one) { return one; });
        const bool has_fifo_room = !fifo || fifo->level <= room_level;
        room = is_shared ? !is_last() || has_fifo_room : has_fifo_room;
        if (is_shared) {
            is_drained = !passing(1, write + 1);
            go = state == ACCUMULATE;
            resume = state == ACCUMULATE && at_barrier && room;
        } else {
            is_drained = layers[0].slots > write || !passing(1, write);
            go = state == ACCUMULATE && !passing(1, settling);
            if (state == SWEEP && at(0).is_end && settling == 0) go = keeps_sums ? is_last_timestep() : true;
            resume = state == ACCUMULATE && at_barrier && is_drained && room;
        }
        for (Fetcher &one : fetchers) {
            one.load = go && one.occupied && !one.first->end && (!one.active || one.is_final);
            one.pop = one.load || resume;
            if (depth) continue;
            one.moves_on = is_short ? one.pop || one.discard : !one.held || one.pop;
            one.moves_up = is_grouped ? !one.grouped.valid || one.moves_on : one.moves_on;
            one.moves_in = !one.looking.valid || one.moves_up;
            one.room = one.moves_in;
        }
    }

    void answer() override {
        frozen = !fifo && out().valid && !out().ready;
        sample_end = ends_sample && !frozen;
        for (size_t stream = 0; stream < static_cast<size_t>(streams); stream++) {
            bool all = true;
            for (int64_t walker = 0; walker < walkers; walker++) all = all && fetcher(walker, stream).room;
            has_room[stream] = all;
            // intake.rooms: what so many lanes say is known a clock late.
            if (streams > 1 && depth) all = had_room[stream];
            if (!is_shared)
                take_merged(stream, all);
            else if (is_chain)
                take_chain(stream, all);
            else
                take_links(stream, all);
        }
    }

    // intake.MergedIntake
    void take_merged(size_t stream, bool has) {
        in(stream).ready = has && !frozen;
        accept[stream] = in(stream).moves();
        given[stream] = in(stream).item;
    }

    // intake.ChainIntake
    void take_chain(size_t stream, bool has) {
        Channel &outer = in(stream), &token = in(static_cast<size_t>(streams) + stream);
        const bool reads_input = state == ACCUMULATE && layer == 0 && !fed[stream];
        const bool free = has && !frozen;
        outer.ready = free && reads_input;
        token.ready = free && !reads_input;
        accept[stream] = outer.moves() || token.moves();
        given[stream] = reads_input ? outer.item : token.item;
        if (!reads_input && !token.item.end)
            given[stream].source += static_cast<int32_t>(layers[static_cast<size_t>(token.item.layer) + 1].base);
    }

    // Inputs where links are taken: of each stream the port, the sweeps' events (if there are any), and the copies.
    size_t input(size_t stream, size_t number) const { return stream * (2 + copies) + number; }
    // Where what comes in at the port is copied to.
    Channel &copied(size_t stream, size_t number) { return out(1 + returns.size() + stream * copies + number); }

    // links.LinkIntake
    void take_links(size_t stream, bool has) {
        const Link &now = link_of(stream);
        Channel &port = in(input(stream, 0));
        for (size_t number = 0; number < 2 + copies; number++) in(input(stream, number)).ready = false;
        const bool moves = !held[stream] || has, wanted = moves && !done[stream] && !frozen;
        Channel &sender = in(input(stream, now.way == PORT ? 0 : now.way == TOKEN ? 1 : 2 + now.copy));
        bool free = true;
        if (now.way == PORT)
            for (size_t number = 0; number < copies; number++) free = free && copied(stream, number).ready;
        sender.ready = wanted && free;
        for (size_t number = 0; number < copies; number++) {
            copied(stream, number).valid = port.moves();
            copied(stream, number).item = port.item;
        }
        accept[stream] = held[stream] && has && !frozen;
        given[stream] = event[stream];
        link_moves[stream] = moves;
        senders[stream] = &sender;
    }

    void follow_link(size_t stream) {
        if (!link_moves[stream]) return;
        const Link &now = link_of(stream);
        const bool takes = senders[stream]->moves();
        const Item &item = senders[stream]->item;
        const bool is_last_link = link[stream] + 1 == links.size() || links[link[stream] + 1].layer != now.layer;
        held[stream] = takes && (item.end ? is_last_link : now.reaches[item.source] != 0);
        event[stream] = item;
        if (!item.end) event[stream].source += static_cast<int32_t>(now.base);
        if (takes && item.end && is_last_link) done[stream] = true;
        if (takes && item.end && !is_last_link) link[stream]++;
    }

    // turns.Turns.take
    void take(size_t number) {
        if (is_chain) return;
        size_t first = 0;
        while (links[first].layer != number) first++;
        std::fill(link.begin(), link.end(), first);
        std::fill(done.begin(), done.end(), false);
    }

    void clock() override {
        if (frozen) return;
        for (size_t stream = 0; stream < static_cast<size_t>(streams); stream++) {
            bool all = true;
            for (int64_t walker = 0; walker < walkers; walker++) all = all && fetcher(walker, stream).waiting;
            waited[stream] = all;
            had_room[stream] = has_room[stream];
            for (int64_t walker = 0; walker < walkers; walker++)
                walk(fetcher(walker, stream), walker, accept[stream], given[stream]);
            if (is_shared && is_chain) {
                if (in(stream).moves() && in(stream).item.end) fed[stream] = true;
                if (resume) fed[stream] = false;
            } else if (is_shared) {
                follow_link(stream);
            }
        }
        newest = (newest + LINE - 1) % LINE;
        if (is_shared)
            turn();
        else
            follow();
    }

    void walk(Fetcher &one, int64_t walker, bool accepts, const Item &item) {
        const Fetcher::Row first = *one.first;
        if (depth) {
            const bool frees = is_short ? one.freed : one.discard;
            if (one.held) {
                const int64_t tail = one.head + one.level;
                one.queue[static_cast<size_t>(tail < depth ? tail : tail - depth)] = *one.entering;
            }
            if (one.pop) one.head = one.head + 1 == depth ? 0 : one.head + 1;
            one.level += one.held - one.pop;
            one.reserved += accepts - one.pop - frees;
            one.freed = one.discard;
        }
        // The walker.
        one.synapse = one.word;
        one.decoding = one.reading;
        one.decoded_lands = one.read_lands;
        one.reading = one.active;
        one.read_lands = !one.is_final || one.lands;
        if (one.load) {
            one.active = true;
            one.is_final = first.count == 1;
            one.remaining = first.count;
            one.lands = first.lands;
        } else if (one.active) {
            one.active = !one.is_final;
            one.is_final = one.remaining == 2;
            one.remaining--;
        }
        if (!is_decoded) one.decoding = false;
        if (is_short) one.synapse = false;
        if (accepts || one.looks_up()) look_up(one, walker, accepts, item);
    }

    void look_up(Fetcher &one, int64_t walker, bool accepts, const Item &item) {
        if (one.moves_on) one.found = is_grouped ? one.grouped : one.looking;
        if (one.moves_up) one.grouped = one.looking;
        if (!one.moves_in) return;
        one.looking = Fetcher::Row{};
        one.looking.valid = accepts;
        one.looking.end = item.end;
        if (!accepts || item.end) return;
        one.looking.count = lengths[walker * sources + item.source];
        one.looking.lands = !landing || landing[walker * sources + item.source];
    }

    void next_timestep() {
        sample += is_last_timestep();
        timestep = is_last_timestep() ? 0 : timestep + 1;
    }

    // sweeps.SweepControl._of_one
    void follow() {
        const bool is_end = slot == layers[0].slots - 1, is_last_one = is_last_timestep();
        switch (state) {
            case CLEAR:
                slot = is_end ? 0 : slot + 1;
                if (is_end) state = ACCUMULATE;
                break;
            case ACCUMULATE:
                if (resume) state = SWEEP;
                break;
            case SWEEP:
                slot = is_end ? 0 : slot + 1;
                if (!is_end) break;
                next_timestep();
                if (!keeps_sums || is_last_one)
                    state = ACCUMULATE;
                else if (!room || layers[0].slots <= write)
                    state = WAIT;
                break;
            default:
                if (is_drained && room) state = SWEEP;
        }
    }

    // sweeps.SweepControl._in_turns
    void turn() {
        switch (state) {
            case ACCUMULATE:
                if (!resume) break;
                if (!is_last())
                    take(layer + 1);
                else
                    take(keeps_sums && !is_last_timestep() ? 1 : 0);
                state = SWEEP;
                break;
            case SWEEP: {
                const bool is_end = slot == layers[layer].slots - 1;
                slot = is_end ? 0 : slot + 1;
                if (is_end) state = DRAIN;
                break;
            }
            default:
                if (!is_drained) break;
                if (!is_last()) {
                    layer++;
                    state = clearing ? SWEEP : ACCUMULATE;
                    break;
                }
                layer = 0;
                state = ACCUMULATE;
                if (!clearing) {
                    if (keeps_sums && !is_last_timestep()) state = SWEEP;
                    next_timestep();
                }
                clearing = false;
        }
    }
};

}  // namespace clocks
