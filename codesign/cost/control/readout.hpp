// Values and decisions.
#pragma once

#include <cstdint>

#include "part.hpp"

namespace clocks {

// readout.Readout, whose words are taken at once.
struct Readout : Part {
    enum State { CLEAR, COLLECT, JUDGE, VALUES, DECIDE };
    const Samples &samples;
    bool passes, exits, sends_updates;
    int64_t outputs_count, lead, timestep = 0, counter = 0, sample = 0, settling = 0, ended = 0;
    State state = CLEAR;
    bool exited = false, valid_1 = false, sends_1 = false, last_1 = false, valid = false, last = false;
    bool closed = false, is_busy = false;

    Readout(Description &given, const Samples &samples) : Part(given), samples(samples) {
        passes = given.flag();
        exits = given.flag();
        sends_updates = given.flag();
        outputs_count = given.next();
        lead = given.next();
    }

    bool decided() const { return valid && last; }
    bool is_end() { return in().valid && in().item.end; }
    bool at_last() const { return timestep == samples.timesteps - 1; }

    void answer() override {
        in().ready = passes || state == COLLECT;
        closed = exits && state == COLLECT && is_end() && at_last();
        is_busy = (valid_1 && sends_1) || valid || state == VALUES || state == DECIDE;
    }

    void clock() override {
        if (passes) {
            const bool decides = is_end() && at_last();
            valid = in().valid && (!in().item.end || decides);
            last = decides;
            if (is_end()) timestep = decides ? 0 : timestep + 1;
            return;
        }
        valid = valid_1 && sends_1;
        last = last_1;
        const bool was_valid_1 = valid_1;
        bool step = false, sends = true, decides = false;
        switch (state) {
            case CLEAR:
                step = true;
                sends = false;
                count(COLLECT);
                break;
            case COLLECT:
                step = in().valid && !in().item.end && !exited;
                sends = sends_updates;
                if (is_end()) collect_end();
                break;
            case JUDGE:
                judge(was_valid_1);
                break;
            case VALUES:
                step = true;
                count(DECIDE);
                break;
            case DECIDE:
                step = decides = true;
                state = COLLECT;
        }
        valid_1 = step;
        sends_1 = sends;
        last_1 = decides;
    }

    void count(State next) {
        if (++counter == outputs_count) {
            counter = 0;
            state = next;
        }
    }

    void collect_end() {
        const bool was_last = at_last();
        if (exits && !exited) {
            ended = timestep;
            state = JUDGE;
        }
        timestep = was_last ? 0 : timestep + 1;
        if (!was_last) return;
        if (!exited) state = VALUES;
        exited = false;
        sample++;
    }

    // early_exit.LeadTracker
    void judge(bool still_updates) {
        if (still_updates)
            settling = 0;
        else if (settling != lead - 1)
            settling++;
        else {
            settling = 0;
            exited = samples.exits[sample] == ended;
            state = exited ? VALUES : COLLECT;
        }
    }
};

}  // namespace clocks
