"""Prints the CustomResourceDefinition, as YAML."""

import sys

import yaml

from dporun_api.crd import custom_resource_definition


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


print("# Generated from the models in api/dporun_api/v1alpha1: make generate")
yaml.dump(custom_resource_definition(), sys.stdout, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
