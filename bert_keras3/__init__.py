"""The modules under the scripts, in six rooms.

The scripts import console, which may import serving, then tasks, training,
weights and data; arrows never point the other way. `modeling`, `optimization`
and `tokenization` are files beside this package: if importing one of them
brings another distribution's module of that name, start Python in the checkout
or uninstall that distribution.
"""
