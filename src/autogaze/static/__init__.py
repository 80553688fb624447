"""Gazing as a fixed sequence of device operations: nothing is allocated, waited for or decided by the host in a step.

From the ground up: :mod:`.desk` holds what a step reads and writes, :mod:`.choose` picks a group of gazes,
:mod:`.steps` are the two steps, :mod:`.graphs` records and replays them, :mod:`.engine` puts frames through them.
"""
