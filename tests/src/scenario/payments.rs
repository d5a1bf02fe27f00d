//! What stands in the system of record of a scenario.

use std::path::PathBuf;

use super::Scenario;
use crate::{Call, Payment, database, program, say};

impl Scenario {
    /// Payments in the system of record.
    pub async fn payments(&self) -> Vec<Payment> {
        database::payments(&self.path("var/payments.db")).await
    }

    /// Refund requests that the system of record received.
    pub async fn refund_calls(&self) -> Vec<Call> {
        self.calls("refund_payment").await
    }

    /// Requests to read an order that it received.
    pub async fn read_calls(&self) -> Vec<Call> {
        self.calls("read_order").await
    }

    /// Refunds that were taken back in the system of record, in that order.
    pub async fn cancellations(&self) -> Vec<String> {
        database::cancellations(&self.path("var/payments.db")).await
    }

    /// Requests to take a refund back that it received.
    pub async fn cancel_calls(&self) -> Vec<Call> {
        self.calls("cancel_refund").await
    }

    async fn calls(&self, tool: &str) -> Vec<Call> {
        let calls = database::calls(&self.path("var/payments.db")).await;
        calls.into_iter().filter(|call| call.tool == tool).collect()
    }

    /// Puts an order with a long text into the system of record.
    pub async fn big_order(&self, order: &str, bytes: usize) {
        self.order(order, &"x".repeat(bytes)).await;
    }

    /// Puts an order into the system of record.
    pub async fn order(&self, order: &str, items: &str) {
        database::add_order(&self.new_payments().await, order, items).await;
    }

    /// Puts a customer into the system of record.
    pub async fn customer(&self, customer: &str, name: &str, email: &str) {
        database::add_customer(&self.new_payments().await, customer, name, email).await;
    }

    /// Raises what an order was worth, so that many runs can be paid from it. Before any worker.
    pub async fn raise_order(&self, order: &'static str) {
        let statement = "UPDATE orders SET total_cents = 1000000000 WHERE order_id = $1";
        assert_eq!(database::change(&self.new_payments().await, statement, order).await, 1);
    }

    /// The system of record before any worker: the server makes its file, then sees that nobody is there.
    async fn new_payments(&self) -> PathBuf {
        let database = self.path("var/payments.db");
        say(&program("refunds-mcp"), &["--database", database.to_str().expect("text")], &[], self.world.folder.path())
            .await;
        database
    }
}
