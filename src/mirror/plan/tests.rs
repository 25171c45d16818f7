//! Placeholder for the planner's properties.
