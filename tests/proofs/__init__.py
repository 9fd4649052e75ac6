"""Proofs of the components with SymbiYosys: `make prove` runs all of them, the tests a fast part.

A proof is a harness that drives a delivered component by its ports, with a specification beside it; the defects that
break it; and how far it reaches. :mod:`.catalogue` lists them, docs/proofs.md says what they mean.
"""
