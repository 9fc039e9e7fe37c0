"""The directory of a run: the one place that knows its files, reads them and writes them.

================================= ============================== ======================================================
file                              written by                     read by
================================= ============================== ======================================================
``inputs/model adapter *.jsonl``  prepare                        train, finish (evaluation, merge)
``inputs/prepared.json``          prepare, last                  train, finish, archive, report
``inputs/raw key cache``          prepare, train                 prepare, train
``checkpoint-N/``                 train                          train (resume), archive, diagnose
``checkpoint-N/COMPLETE``         train, last                    train, archive
``checkpoint-N/ledger_R.json``    train, each process            train (resume)
``checkpoint_upload.json``        train, its upload process      train, which starts it; status server
``training_config.json``          train, at the start            report, diagnose, evaluate
``log_history.jsonl``             train, appended                finish (diagnosis), diagnose, report
``runs/``                         train                          TensorBoard
``final/``                        train, at the end              finish, evaluate, merge, ``checkpoints.resumeFrom``
``training_metrics.json``         train, last                    train (is it done?), report
``evaluation/*.json``             finish, evaluate               finish (is it done?), report
``merged/``                       finish, merge                  finish (is it done?), servers
``health.json verdict.json``      finish                         report, archive (``archive.when: Passed``)
``report.* README.md``            finish, report, archive        people, the Hub
``progress.json``                 prepare, train, finish,        status server, report, ``dporun run --local``
                                  archive
``outcome.json``                  train, of node 0               archive, report, ``dporun run --local``
``outcome-N.json``                train, of node N               people
``prepare_outcome.json``          prepare                        report, ``dporun run --local``
``finish_outcome.json``           finish                         train, which starts it
``archive_outcome.json``          archive                        ``dporun run --local``
``manifest.json``                 archive                        archive (is the one in the store its own?)
================================= ============================== ======================================================

A file is whole or not there: JSON is replaced atomically, folders are renamed into place, a checkpoint has a marker,
the log history is appended line by line.
"""

from dporun_trainer.run_folder.folder import RunFolder

__all__ = ["RunFolder"]
