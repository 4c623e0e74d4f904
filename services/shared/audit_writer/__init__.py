"""The parts of services.shared.audit, named in the order in which an event passes them."""
