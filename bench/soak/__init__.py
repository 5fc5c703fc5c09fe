"""Soak test: processes publish, handle and look up events under injected faults, and the history shows what was lost.

==============  ===================================================================================
``plan``        the faults of a run, and their order: a pure function of the seed
``spec``        what a process does, as it is told
``worker``      one process: publishes events, handles them, or asks lists about them
``inquiry``     lists that run, and lists that are started anew
``checkpoint``  the position at which a reader without a group resumes when its process is restarted
``processes``   a server and the workers, as the process that starts and kills them sees them
``topology``    what is known of the servers of a run, whichever they are
``machine``     one server, and what can happen to it
``service``     servers behind Sentinels, and what can happen to them
``shards``      a cluster, and what can happen to it
``name``        a name that leads to a server, and that is late
``nemesis``     injects a fault
``runner``      one run from beginning to end
``history``     what happened: JSON lines, appended by every process
``reported``    what a subscriber or a list said that it may have missed: pure
``summary``     what happened, from the history: pure
``answers``     what lists answered, and whether it was right: pure
``verdict``     which guarantees the history shows to be kept or broken: pure
==============  ===================================================================================
"""
