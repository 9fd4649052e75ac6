// Runs a testbench under cocotb and drives its clock: `clk` is 0 at even nanoseconds, 1 at odd ones.
//
// A clock that cocotb drives costs more than the evaluation of a small design, because each edge is a callback. Here
// cocotb is asked only when one of its timers is due or a signal that it watches has changed.

#include <memory>
#include <string>

#include "Vtop.h"
#include "verilated.h"
#include "verilated_vpi.h"

#if VM_TRACE
#include <verilated_vcd_c.h>
static VerilatedVcdC *trace = nullptr;
#endif

static uint64_t now = 0;

double sc_time_stamp() { return static_cast<double>(now); }

extern "C" void vlog_startup_routines_bootstrap(void);

// Callbacks may change signals that others watch. True if any was called.
static bool settle() {
    if (!VerilatedVpi::callValueCbs()) return false;
    while (VerilatedVpi::callValueCbs()) {
    }
    return true;
}

// One time step as cocotb expects it: evaluate and call back until nothing changes, then the read-only callbacks.
static void whole_step(Vtop &top) {
    do {
        do {
            top.eval_step();
            VerilatedVpi::clearEvalNeeded();
            VerilatedVpi::doInertialPuts();
            settle();
        } while (VerilatedVpi::evalNeeded());
        VerilatedVpi::callCbs(cbReadWriteSynch);
        VerilatedVpi::doInertialPuts();
        settle();
    } while (VerilatedVpi::evalNeeded());
    top.eval_end_step();
    VerilatedVpi::callCbs(cbReadOnlySynch);
}

static void dump() {
#if VM_TRACE
    if (trace) trace->dump(now);
#endif
}

static void wrap_up(void *) {
    VerilatedVpi::callCbs(cbEndOfSimulation);
#if VM_TRACE
    if (trace) trace->close();
#endif
}

int main(int argc, char **argv) {
    Verilated::commandArgs(argc, argv);
    auto top = std::make_unique<Vtop>("");
    Verilated::fatalOnVpiError(false);
#if VM_TRACE
    Verilated::traceEverOn(true);
    for (int i = 1; i < argc; i++) {
        if (std::string(argv[i]) == "--trace") {
            trace = new VerilatedVcdC;
            top->trace(trace, 99);
            trace->open("dump.vcd");
        }
    }
#endif
    vlog_startup_routines_bootstrap();
    Verilated::addExitCb(wrap_up, nullptr);
    VerilatedVpi::callCbs(cbStartOfSimulation);
    settle();
    top->clk = 0;
    whole_step(*top);
    dump();
    while (!Verilated::gotFinish()) {
        now++;
        top->clk = now & 1;
        if (VerilatedVpi::cbNextDeadline() <= now) {
            VerilatedVpi::callCbs(cbNextSimTime);
            settle();
            VerilatedVpi::callTimedCbs();
            settle();
            whole_step(*top);
        } else {
            top->eval();
            // What cocotb wrote when a watched signal changed takes effect in the same step.
            if (settle()) whole_step(*top);
        }
        dump();
    }
    top->final();
    wrap_up(nullptr);
    return Verilated::threadContextp()->errorCount() > 0;
}
