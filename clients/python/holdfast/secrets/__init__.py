"""Secrets do not belong on the record: what has the form or the name of one is masked.

What is recorded is kept for ever and read by many. It is better to mask too much than too little: a
command line on record is there for people to recognise it, not to be run again. It is a best effort
all the same: a secret that looks like any other word cannot be told from one. What must not be
recorded for certain is left out with ``--no-argv``.

A secret is told by its name (:mod:`.names`), by its form and by what stands around it
(:mod:`.text`), by its randomness (:mod:`.blobs`), and by where the programs that people know take
theirs (:mod:`.programs`), on a command line (:mod:`.commands`) or in a script (:mod:`.scripts`).
"""

from holdfast.secrets.commands import masked_command as masked_command
from holdfast.secrets.commands import masked_script as masked_script
from holdfast.secrets.text import masked as masked
