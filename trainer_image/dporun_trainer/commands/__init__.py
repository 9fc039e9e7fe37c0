"""The commands of the trainer image: arguments and body of each."""
