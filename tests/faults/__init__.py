"""Faults made on purpose: dead workers, interrupts, errors, odd places to be called from; run by `nox -s faults`."""
