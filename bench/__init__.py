"""Measures Holdfast beside restic and borg: `./dev bench`, or `python -m bench` from the checkout.

Uses the installed commands only, never Holdfast's own modules: what is timed is what a person
types. One run measures every tool on the same machine in the same hour; trust its ratios more
than its seconds.

    measure.py        a command's wall time, CPU and peak memory; cold caches; who else was busy
    tools.py          how each tool is told to do the same thing
    corpus.py         what is backed up, each day under the same path
    steps.py          the sequence of steps of one tool over one corpus
    mounted.py        the same for a mounted repository
    reads.py          sequential and random reads of one file, in a process of their own
    goals.py          what we want to reach, as data
    report.py         the tables

    smallcorpora.py   data that anybody can make in a minute; with realfiles.py, churn.py, dumps.py
    corpora.sh        the full corpora, for root; with churn.py, tables.py
    demo.sh           not a measurement: the main job once, for people to watch (./dev demo)
"""
