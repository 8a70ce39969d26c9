"""A convolutional network learns handwritten digits in ten lines, on a GPU if there is one and on
the CPU otherwise."""
# --- README
import xpnet as xn

x_train, y_train, x_test, y_test = xn.data.digits().arrays()
net = xn.Sequential([
    xn.Conv2d(16, 3, padding="half", activation="relu"), xn.MaxPool2d(2),
    xn.Flatten(), xn.Linear(64, activation="relu"), xn.Linear(10),
], input_shape=(1, 8, 8))
net.summary()
net.fit(x_train, y_train, loss="cross_entropy", optimizer=xn.Adam(3e-3), schedule="one_cycle",
        epochs=10)
print(net.evaluate(x_test, y_test))
# --- end
