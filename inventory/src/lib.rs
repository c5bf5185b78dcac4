//! The inventory: which machines there are, what they should run, and what became of it.
//!
//! ```text
//!  Sighting ──▶ decide(&Snapshot, &Sighting) ──▶ Decision { plan, loader, reasons }
//!                       ▲                                  pure: no I/O, no clock, no log
//!          effective settings: machine over groups, with who says what
//!                       ▲
//!  Store (on disk) ─────┘ machines, groups, leases, boots and their events, facts
//! ```
//!
//! [`decide`] is the only place where it is settled what a machine gets. DHCP, TFTP and HTTP call it and so
//! does `kiln machine explain`, so that they cannot disagree.

#[macro_use]
mod number;

mod apply;
mod bake;
mod boot;
mod boot_place;
mod decide;
mod dhcp_value;
mod discovery;
mod effective;
mod flag;
mod group;
mod group_index;
mod hostlist;
mod identity;
mod labels;
mod lease;
mod lease6;
mod loader;
mod machine;
mod merge;
mod netconsole;
mod numbered;
mod order;
mod plan;
mod reason;
mod scan;
mod seal;
mod selector;
mod settings;
mod sighting;
mod snapshot;
mod state_disk;
mod store;

pub use apply::{Wanted, Wrong};
pub use bake::Bake;
pub use boot::{Boot, BootEvent, BootId, NewBoot, Outcome, Phase};
pub use boot_place::{BootPlace, ParseBootPlaceError};
pub use decide::decide;
pub use dhcp_value::{
    Identifier, OptionValue, ParseIdentifierError, ParseOptionError, may_set_option,
};
pub use discovery::{
    ATTRIBUTES, Action, Becomes, Discovered, DiscoveryRule, DiscoveryState, Expected, Glimpse,
    NameTemplate, ParseTemplateError, Place, SeenFacts, Settled, World, is_attribute, settle,
};
pub use effective::beaten::BeatenRow;
pub use effective::{Effective, Origin, Said, SettingRow};
pub use flag::{Flag, ParseFlagError};
pub use group::Group;
pub use hostlist::{ParseHostlistError, expand_hostlist};
pub use identity::{
    Clue, Likeness, Recogniser, Traits, is_uuid, other_order, telling_text, telling_uuid,
};
pub use labels::{Labels, is_label_value};
pub use lease::Lease;
pub use lease6::{Duid, Lease6, ParseDuidError};
pub use loader::{BootFrom, Loader, LoaderChoice, ParseWordError};
pub use machine::{Locked, Machine, MachineId, NewMachine};
pub use netconsole::{Netconsole, fill_netconsole};
pub use order::{Command, NewOrder, Order, OrderId, OrderState};
pub use plan::{Artifact, BootPlan, Decision, Plan};
pub use reason::Reason;
pub use seal::{Seal, open_secrets, sealed_secrets};
pub use selector::{ParseSelectorError, Selector, Term, is_label};
pub use settings::{ParseSettingError, Setting, Settings};
pub use sighting::{Asker, Firmware, ParseFirmwareError, Sighting};
pub use snapshot::{Claim, ImageVersion, Kept, Snapshot, UnknownMachines};
pub use state_disk::{ParseStateDiskError, StateDisk};
pub use store::{
    Applied, Asked, BLOCK, BackupError, BackupFile, BackupSummary, Change, Changed, Contents,
    Cutoff, Database, Document, Edit, FeedEvent, Mark, News, Outline, ParseDatabaseError, Pools,
    PostgresUrl, Source, SpareBoots, Step, Store, StoreError, Stored, StoredFacts, TakenUp, Verb,
    Verified, WhichBoots, verify_backup,
};
