//! What the rules stand on: what several of them conclude, or tell, in the same way.

pub(crate) mod breakdown;
pub(crate) mod broken;
pub(crate) mod closing;
pub(crate) mod connecting;
pub(crate) mod crossing;
pub(crate) mod cut_off;
pub(crate) mod drops;
pub(crate) mod gaps;
pub(crate) mod give_up;
pub(crate) mod harm;
pub(crate) mod lateness;
pub(crate) mod limit;
pub(crate) mod locks;
pub(crate) mod loss;
pub(crate) mod occasion;
pub(crate) mod opening;
pub(crate) mod origin;
pub(crate) mod race;
pub(crate) mod reset;
pub(crate) mod scene;
pub(crate) mod slowness;
pub(crate) mod standing;
pub(crate) mod telling;
pub(crate) mod upstreams;
pub(crate) mod work;
