"""Soak test: processes publish and handle events under injected faults, and the history shows what was lost.

==============  ===================================================================================
``plan``        the faults of a run, and their order: a pure function of the seed
``worker``      one process: publishes events, or handles them
``checkpoint``  the position at which a reader without a group resumes when its process is restarted
``processes``   the server and the workers, as the process that starts and kills them sees them
``nemesis``     injects a fault
``runner``      one run from beginning to end
``history``     what happened: JSON lines, appended by every process
``verdict``     which guarantees the history shows to be kept or broken: pure
==============  ===================================================================================
"""
