"""A long run under faults: processes publish and handle, a nemesis breaks things, and the history says what was lost.

=============  ==================================================================================
``plan``       which faults, in which order: a pure function of the seed
``worker``     what one process does: publish events, or handle them
``bookmark``   where a reader without a group continues when its process is started again
``processes``  the server and the workers, as the one who starts and kills them sees them
``nemesis``    carries out a fault
``conductor``  one run from beginning to end
``history``    what happened: JSON lines, appended by everybody
``verdict``    what the history proves: pure
=============  ==================================================================================
"""
