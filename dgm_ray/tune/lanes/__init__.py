"""Trials of one shape as lanes of packs: a worker a process, a pack a worker, and Tune's own search and scheduler."""
