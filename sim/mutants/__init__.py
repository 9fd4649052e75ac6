"""Mutants: deliberate faults in a delivered machine, which the testbench must catch.

Nothing that the golden model reads is touched. Data mutants change the delivered memory images, RTL mutants the
delivered Verilog; mutants of the mapper come from whoever can generate the machine again. The sidecar's hashes are
stamped again, so that it is the simulation which has to find the fault. A mutant is made only if the golden model says
that it shows in what counts on the verified samples. One that cannot be made or built is an error, never caught and
never escaped.
"""

from sim.mutants.run import MUTANT_SAMPLES, Faulty, Reload, run_mutants
from sim.mutants.scene import Mutant, NotApplicable, Scene

__all__ = ["MUTANT_SAMPLES", "Faulty", "Mutant", "NotApplicable", "Reload", "Scene", "run_mutants"]
