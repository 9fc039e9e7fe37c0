"""The DPORun API: typed models of the custom resource, and the CustomResourceDefinition made from them."""
