//! Who is who: approvers with their secrets, agents and services with their tokens.

use serde_json::json;
use shared::digest::Digest;
use zeroize::Zeroizing;

use super::{
    EnrolledApprover, NewToken, Registry, RegistryError, effects::draft, new_ulid, random_hex,
    runs::check_name,
};
use crate::{
    approval::secret,
    store::{ApproverRow, Change, TokenKind, TokenRow, Write},
};

impl Registry {
    /// Enrols a human who may decide. Enrolling again replaces the secret and voids decisions that were not begun.
    ///
    /// # Errors
    /// `INVALID_NAME`, `SECRET_TOO_SHORT`, `TEST_AND_REAL`.
    pub fn enrol(&self, name: &str, secret: &str, is_test: bool) -> Result<(), RegistryError> {
        check_name("name", name)?;
        let secret_hash = secret::hash(secret).map_err(|error| {
            RegistryError::new("SECRET_REFUSED", error.to_string(), "choose another secret")
        })?;
        let others = self.0.store.approvers()?;
        if others
            .iter()
            .any(|other| other.name != name && other.is_test != is_test)
        {
            return Err(RegistryError::new(
                "TEST_AND_REAL",
                "test approvers and real ones cannot exist beside each other",
                "unenrol the others first, or use another state directory for tests",
            ));
        }
        let mut row = ApproverRow {
            name: name.to_owned(),
            secret_hash,
            is_test,
            enrolment_id: new_ulid(),
            enrolled_at: self.now(),
            signature: String::new(),
        };
        row.signature = self.0.keys.sign(&row.signed_bytes());
        let payload = json!({ "test": is_test, "enrolment_id": row.enrolment_id });
        self.commit(&Change {
            audit: vec![draft("owner", "approver.enrolled", name, payload)],
            writes: vec![Write::PutApprover(row)],
            sign_head: true,
            ..Change::default()
        })?;
        Ok(())
    }

    /// Ends an approver; decisions of theirs that were not begun are void.
    ///
    /// # Errors
    /// `APPROVER_NOT_FOUND`.
    pub fn unenrol(&self, name: &str) -> Result<(), RegistryError> {
        if !self
            .0
            .store
            .approvers()?
            .iter()
            .any(|approver| approver.name == name)
        {
            return Err(RegistryError::new(
                "APPROVER_NOT_FOUND",
                format!(
                    "nobody named `{}` is enrolled",
                    shared::visible::machine(name, false)
                ),
                "`mcp-spec-registry enrol --name NAME` enrols somebody",
            ));
        }
        self.commit(&Change {
            audit: vec![draft("owner", "approver.unenrolled", name, json!({}))],
            writes: vec![Write::DeleteApprover(name.to_owned())],
            sign_head: true,
            ..Change::default()
        })?;
        Ok(())
    }

    /// Who is enrolled.
    ///
    /// # Errors
    /// A failing store.
    pub fn approvers(&self) -> Result<Vec<EnrolledApprover>, RegistryError> {
        let approvers = self.0.store.approvers()?.into_iter();
        Ok(approvers
            .map(|row| EnrolledApprover {
                name: row.name,
                is_test: row.is_test,
                enrolled_at: row.enrolled_at,
            })
            .collect())
    }

    /// Checks an approver's secret, in the same time whether the name exists or not.
    ///
    /// # Errors
    /// `SECRET_WRONG`.
    pub fn verify_secret(&self, name: &str, secret: &str) -> Result<(), RegistryError> {
        self.verified_approver(name, secret).map(|_| ())
    }

    pub(super) fn verified_approver(
        &self,
        name: &str,
        secret: &str,
    ) -> Result<ApproverRow, RegistryError> {
        let row = self
            .0
            .store
            .approvers()?
            .into_iter()
            .find(|approver| approver.name == name);
        let wrong = || {
            RegistryError::new(
                "SECRET_WRONG",
                "the name and the secret do not belong together",
                "type the secret you enrolled with; `mcp-spec-registry enrol --name NAME` sets a new one",
            )
        };
        let Some(row) = row else {
            secret::verify_nobody(secret);
            return Err(wrong());
        };
        if !self.0.keys.verify(&row.signed_bytes(), &row.signature) {
            return Err(super::unproven("approver", name));
        }
        if secret::verify(secret, &row.secret_hash) {
            Ok(row)
        } else {
            Err(wrong())
        }
    }

    /// Makes a token. It is shown once and stored as a hash.
    ///
    /// # Errors
    /// `INVALID_NAME`, `NAME_TAKEN`.
    pub fn add_token(
        &self,
        kind: TokenKind,
        name: &str,
        server: Option<&str>,
    ) -> Result<NewToken, RegistryError> {
        check_name("name", name)?;
        let other_kind = |row: &TokenRow| row.principal == name && !row.revoked && row.kind != kind;
        if self.0.store.tokens()?.iter().any(other_kind) {
            return Err(RegistryError::new(
                "NAME_TAKEN",
                format!("`{name}` is the name of a principal of another kind"),
                "give agents and services different names",
            ));
        }
        let token = Zeroizing::new(format!("sdai_{}{}", random_hex()?, random_hex()?));
        let row = TokenRow {
            principal: name.to_owned(),
            kind,
            token_sha256: Digest::of(token.as_bytes()),
            server: server.map(str::to_owned),
            created_at: self.now(),
            revoked: false,
        };
        let payload = json!({ "kind": kind, "server": server, "token_sha256": row.token_sha256 });
        self.commit(&Change {
            audit: vec![draft("owner", "token.added", name, payload)],
            writes: vec![Write::PutToken(row)],
            ..Change::default()
        })?;
        Ok(NewToken {
            principal: name.to_owned(),
            kind,
            server: server.map(str::to_owned),
            token,
            registry_key: self.0.keys.public_key(),
        })
    }

    /// The credential that a token stands for.
    ///
    /// # Errors
    /// A failing store.
    pub fn principal_of(&self, token: &str) -> Result<Option<TokenRow>, RegistryError> {
        Ok(self
            .0
            .store
            .token(&Digest::of(token))?
            .filter(|row| !row.revoked))
    }

    /// The agents' tokens as the `--tokens` file of a server: names and hashes.
    ///
    /// # Errors
    /// A failing store.
    pub fn export_tokens(&self) -> Result<String, RegistryError> {
        use std::fmt::Write as _;

        let mut text = String::new();
        for row in self
            .0
            .store
            .tokens()?
            .into_iter()
            .filter(|row| !row.revoked)
        {
            let kind = match row.kind {
                TokenKind::Agent => "agent",
                TokenKind::Service => continue,
            };
            let hash = row.token_sha256.as_str().trim_start_matches("sha256:");
            // Names have no quotes or backslashes (`check_name`); writing to a String cannot fail.
            let _ = write!(
                text,
                "[[token]]\nprincipal = \"{}\"\nkind = \"{kind}\"\nsha256 = \"{hash}\"\n\n",
                row.principal
            );
        }
        Ok(text)
    }
}
