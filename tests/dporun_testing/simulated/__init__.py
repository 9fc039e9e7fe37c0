"""A cluster in memory, in virtual time: an API server, its controllers, a node, a trainer, S3, and what goes wrong.

The operator is the real one, from its requests upwards: ``client`` takes the place of the client library.

- ``history``: what is decided beforehand about the life of one run; ``histories``: at random
- ``world``: plays a history; ``virtual_time``: in an event loop whose clock jumps
- ``api_server`` (``kinds``, ``patches``, ``answers``), ``controllers``, ``jobs``: the control plane
- ``script``, ``script_cases``, ``script_job_cases``: what it has in common with the real one
- ``node``, ``programs``, ``storage``: pods, and what they leave on volumes and in S3
- ``operators``, ``faults``, ``user``: who acts, and what goes wrong with it
- ``verdict``, ``witness``: what must hold at the end, and at every moment
"""
