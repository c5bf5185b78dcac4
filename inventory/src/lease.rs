use std::net::Ipv4Addr;

use kiln_types::Mac;
use serde::{Deserialize, Serialize};

/// One address given to one hardware address until a time.
///
/// Leases belong to hardware addresses, never to client identifiers: firmware, loader and operating system of one
/// machine each send another identifier (EDK2 none, iPXE `01` and the MAC, the system often a DUID).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Lease {
    /// The address.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// Who has it.
    pub mac: Mac,
    /// When it ends, in seconds since 1970. A past time keeps the memory of who had the address.
    pub expires: i64,
    /// Host name the client gave, cleaned to a DNS label.
    pub hostname: Option<String>,
}
