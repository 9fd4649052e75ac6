// The control of a machine, clock by clock: what each part offers, whether it is ready, and the registers that decide so.
//
// There is no arithmetic in it. Which neurons spike is given, and so is how long every row is in every lane; what is
// left is who waits for whom. Parts are joined by channels with valid and ready, as in the Verilog. In a clock all parts
// offer what they have, from the host's side to the decision's; then they answer whether they take it, backwards; then
// all registers change at once. Each part says which module of rtl_templates it stands for. codesign/cost/clocks.py
// draws the parts of a plan.

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

#include "door.hpp"
#include "engine.hpp"
#include "part.hpp"
#include "readout.hpp"
#include "streams.hpp"

namespace clocks {

enum Kind {
    HOST, ADMISSION, SPLITTER, GUARD, TRUSTED, PARALLEL_GUARD, STREAM_CHECK, DROPPER, BUFFER, FORK, FIFO, COLLECTOR,
    READER, MERGE, SELECT, SERIALIZER, ENGINE, READOUT, SINK
};

// accelerator.Accelerator
struct Machine {
    std::vector<Channel> channels;
    std::vector<std::unique_ptr<Part>> parts;
    std::vector<Engine *> engines;
    Host *host = nullptr;
    Door *door = nullptr;
    Admission *admission = nullptr;
    Readout *readout = nullptr;
    int64_t in_flight = 0;

    Machine(const int64_t *netlist, const int32_t *tables, const Samples &samples, bool alone, int64_t *starts) {
        const int64_t count = *netlist++;
        channels.resize(static_cast<size_t>(*netlist++));
        for (int64_t part = 0; part < count; part++) {
            const auto kind = static_cast<Kind>(*netlist++);
            const int64_t group = *netlist++;
            Description given;
            for (int64_t left = *netlist++; left > 0; left--) given.numbers.push_back(*netlist++);
            for (int64_t left = *netlist++; left > 0; left--) given.inputs.push_back(channel(*netlist++));
            for (int64_t left = *netlist++; left > 0; left--) given.outputs.push_back(channel(*netlist++));
            parts.push_back(made(kind, given, samples, tables, alone, starts));
            parts.back()->group = group;
            if (given.at != given.numbers.size()) throw std::runtime_error("numbers of a part are left");
        }
        for (Engine *engine : engines)
            if (engine->fifo_part >= 0)
                engine->fifo = dynamic_cast<Fifo *>(parts.at(static_cast<size_t>(engine->fifo_part)).get());
    }

    Channel *channel(int64_t number) { return &channels.at(static_cast<size_t>(number)); }

    std::unique_ptr<Part> made(
        Kind kind, Description &given, const Samples &samples, const int32_t *tables, bool alone, int64_t *starts
    ) {
        switch (kind) {
            case HOST: {
                auto found = std::make_unique<Host>(given, samples, alone, starts);
                host = found.get();
                return found;
            }
            case ADMISSION: {
                auto found = std::make_unique<Admission>(given);
                admission = found.get();
                return found;
            }
            case GUARD: return as_door(std::make_unique<Guard>(given, samples));
            case TRUSTED: return as_door(std::make_unique<Trusted>(given, samples));
            case PARALLEL_GUARD: return as_door(std::make_unique<ParallelGuard>(given, samples, tables));
            case STREAM_CHECK: {
                auto found = std::make_unique<StreamCheck>(given);
                found->door = door;
                return found;
            }
            case DROPPER: {
                auto found = std::make_unique<Dropper>(given);
                found->door = door;
                return found;
            }
            case ENGINE: {
                auto found = std::make_unique<Engine>(given, samples, tables);
                engines.push_back(found.get());
                return found;
            }
            case READOUT: {
                auto found = std::make_unique<Readout>(given, samples);
                readout = found.get();
                return found;
            }
            case SPLITTER: return std::make_unique<Splitter>(given);
            case BUFFER: return std::make_unique<Buffer>(given);
            case FORK: return std::make_unique<Fork>(given);
            case FIFO: return std::make_unique<Fifo>(given);
            case COLLECTOR: return std::make_unique<Collector>(given, tables);
            case READER: return std::make_unique<Reader>(given, tables);
            case MERGE: return std::make_unique<Merge>(given);
            case SELECT: return std::make_unique<Select>(given);
            case SERIALIZER: return std::make_unique<Serializer>(given, tables);
            case SINK: return std::make_unique<Sink>(given);
        }
        throw std::runtime_error("no such part");
    }

    std::unique_ptr<Part> as_door(std::unique_ptr<Door> found) {
        door = found.get();
        return found;
    }

    // A part within an engine that stands still does so too.
    bool is_frozen(const Part &part) const { return part.group >= 0 && engines[static_cast<size_t>(part.group)]->frozen; }

    // The decisions that were made within so many clocks; -1 if the machine stands still.
    int64_t run(int64_t count, int64_t most, int64_t limit, int64_t *decisions) {
        int64_t made = 0, quiet = 0;
        for (int64_t now = 0; made < count && now < most; now++) {
            const bool decided = readout->decided();
            door->drop = door->can_drop && readout->exited && in_flight == 0;
            for (Engine *engine : engines)
                engine->silence = engine->waits ? engine->was_silent : readout->exited && engine->ahead == 0;
            for (auto &part : parts) part->offer();
            for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
                (*part)->answer();
                if (is_frozen(**part))
                    for (Channel *input : (*part)->inputs) input->ready = false;
            }
            const bool busy = door->in_progress || in_flight != 0 || (readout->exits && readout->is_busy);
            const bool through = readout->exits ? readout->closed : decided;
            quiet = decided || host->out().moves() ? 0 : quiet + 1;
            if (quiet > limit) return -1;
            host->follow(now, made == host->started && !busy);
            if (admission) admission->follow(decided);
            for (auto &part : parts)
                if (!is_frozen(*part)) part->clock();
            for (Engine *engine : engines) {
                engine->ahead += engine->sample_end - through;
                engine->waits = engine->holds && engine->out().valid && !engine->out().ready;
                engine->was_silent = engine->silence;
            }
            in_flight += door->finished - through;
            if (decided) decisions[made++] = now;
        }
        return made;
    }
};

}  // namespace clocks

// How many samples were decided within `most` clocks; -1 if the machine stands still for `limit` clocks, -2 if the
// netlist is none.
extern "C" int64_t codesign_clocks(
    const int64_t *netlist, const int32_t *tables, int64_t count, int64_t timesteps, const int32_t *words,
    const int64_t *begins, const uint8_t *const *spikes, const int64_t *widths, const int64_t *exits, int alone,
    int64_t most, int64_t limit, int64_t *starts, int64_t *decisions
) {
    const clocks::Samples samples{count, timesteps, words, begins, spikes, widths, exits};
    try {
        return clocks::Machine(netlist, tables, samples, alone != 0, starts).run(count, most, limit, decisions);
    } catch (const std::exception &) {
        return -2;
    }
}
