//! What the rules stand on: what several of them conclude, or tell, in the same way.

pub(crate) mod connecting;
pub(crate) mod give_up;
pub(crate) mod harm;
pub(crate) mod limit;
pub(crate) mod occasion;
pub(crate) mod scene;
pub(crate) mod telling;
