"""How any block of work gets executed, durably, knowing nothing of neurons.

errors     Retryable | Poison: whether trying again can help is in the type
files      whole on the disk, or not there
journal    append-only, CRC-framed records, one file per worker process
receipts   what the journals say: which blocks are durable, with which identity and digest
fence      one run at a time on a directory, and no worker of an earlier one left
loop       one worker: acquire, read, compute, write, receipt; with read-ahead
executors  who hands out the blocks: serial (in this process) or daisy (worker processes)
launch     how a worker process is started: argv and environment as data
seat       a worker that takes one order after the other, and the wire over which it gets them
crew       the workers that outlive a task
"""
