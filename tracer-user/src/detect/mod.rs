//! One file a rule: from the model to findings.
